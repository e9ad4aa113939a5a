"""Every error that hostspec raises, in one tree.

::

    HostspecError
    ├── InvalidRequest            what was asked for cannot be: names the thing and the way out
    │   ├── InvalidIdMap          a range is malformed, overlaps another or leaves 32 bits
    │   └── SlowWayRefused        it would take a slow copy (files, bytes), which an option forbids
    ├── IdNotMapped               a file's owner is outside the ID map (path, kind, ID)
    ├── InvalidArchive            a layer tar is broken or truncated
    │   └── DigestMismatch        content is whole, but not the content that was promised
    ├── DriverUnavailable         this driver cannot be used here (driver, reason)
    │   ├── DriverNotInstalled    no distribution provides it
    │   ├── DriverBroken          it does not import, or does not fulfil the contract
    │   ├── DriverNotSupported    the kernel cannot do it
    │   ├── PrerequisitesMissing  a program, module or privilege is missing
    │   └── WrongFilesystem       the file system below its home is of the wrong kind
    ├── OperationNotSupported     this driver never does that (driver, operation, reason)
    ├── DriverFailed              the operating system refused; ``__cause__`` is the OSError
    ├── Unknown                   no such layer, image, container, name or item
    ├── Duplicate                 the ID or name is taken
    ├── InUse                     removal refused; says by whom
    │   └── LayerInUse            layers, images, containers or mounts stand on the layer
    ├── StoreReadOnly             the store, or the record in it, may not be written
    └── StoreCorrupt              a file of the store cannot be understood (path, reason)

A class exists where a caller would act differently.
The facts are attributes; the message is made from them.
Drivers raise only this tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "DigestMismatch",
    "DriverBroken",
    "DriverFailed",
    "DriverNotInstalled",
    "DriverNotSupported",
    "DriverUnavailable",
    "Duplicate",
    "HostspecError",
    "IdNotMapped",
    "InUse",
    "InvalidArchive",
    "InvalidIdMap",
    "InvalidRequest",
    "LayerInUse",
    "OperationNotSupported",
    "PrerequisitesMissing",
    "SlowWayRefused",
    "StoreCorrupt",
    "StoreReadOnly",
    "Unknown",
    "WrongFilesystem",
    "failing",
]


class HostspecError(Exception):
    """Base of every error that hostspec and its drivers raise."""


class InvalidRequest(HostspecError):
    """What was asked for cannot be done as asked.

    Attributes:
        subject: The thing that is wrong: an option, an argument, a file.
        reason: What is wrong with it and what would be right.
    """

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(f"{subject}: {reason}")


class InvalidIdMap(InvalidRequest):
    """An ID map is malformed, overlaps itself or leaves the unsigned 32-bit range."""


class SlowWayRefused(InvalidRequest):
    """A container would take a copy for which the content of files has to be copied; nothing was made.

    Attributes:
        files: How many files, directories included.
        size: How many bytes they hold.
    """

    def __init__(self, subject: str, reason: str, *, files: int, size: int) -> None:
        self.files = files
        self.size = size
        super().__init__(subject, reason)


class IdNotMapped(HostspecError):
    """A file carries an ID for which the map has no answer.

    Attributes:
        path: The file, relative to the root of its layer, or ``""`` where no file is concerned.
        kind: ``"UID"`` or ``"GID"``.
        number: The ID that the map does not cover.
    """

    def __init__(self, path: str, kind: str, number: int) -> None:
        self.path = path
        self.kind = kind
        self.number = number
        where = f"{path}: " if path else ""
        super().__init__(
            f"{where}{kind} {number} is not in the ID map; "
            "use a map that covers it, or allow squashing (ignore_chown_errors)"
        )


class InvalidArchive(HostspecError):
    """A layer tar is broken, truncated or asks for something that no layer may contain.

    Attributes:
        reason: What is wrong.
        member: The name of the member at which it went wrong, or ``None``.
    """

    def __init__(self, reason: str, member: str | None = None) -> None:
        self.reason = reason
        self.member = member
        super().__init__(reason if member is None else f"{member!r}: {reason}")


class DigestMismatch(InvalidArchive):
    """Content arrived whole, but its digest is not the promised one.

    Attributes:
        expected: ``algorithm:hex`` as promised.
        actual: ``algorithm:hex`` as received.
    """

    def __init__(self, expected: str, actual: str, member: str | None = None) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"digest is {actual}, expected {expected}", member)


class DriverUnavailable(HostspecError):
    """A driver cannot be used on this machine or at this place.

    Attributes:
        driver: The driver's name.
        reason: Why, and what would help.
    """

    def __init__(self, driver: str, reason: str) -> None:
        self.driver = driver
        self.reason = reason
        super().__init__(f"driver {driver!r}: {reason}")


class DriverNotInstalled(DriverUnavailable):
    """No installed distribution provides a driver of that name."""


class DriverBroken(DriverUnavailable):
    """The driver does not import, or does not fulfil the contract."""


class DriverNotSupported(DriverUnavailable):
    """This kernel cannot do what the driver needs."""


class PrerequisitesMissing(DriverUnavailable):
    """A program, kernel module or privilege that the driver needs is missing."""


class WrongFilesystem(DriverUnavailable):
    """The file system below the driver's home is of a kind that the driver cannot use."""


class OperationNotSupported(HostspecError):
    """The driver does not do this operation, or not with these options.

    Attributes:
        driver: The driver's name.
        operation: The operation or option that was asked for.
        reason: Why not, and what would help.
    """

    def __init__(self, driver: str, operation: str, reason: str = "not supported") -> None:
        self.driver = driver
        self.operation = operation
        self.reason = reason
        super().__init__(f"driver {driver!r}: {operation}: {reason}")


class DriverFailed(HostspecError):
    """The operating system refused a step of an operation; ``__cause__`` is its OSError.

    Attributes:
        operation: The operation that failed, with its object (``"mount layer 3f2a…"``).
        reason: What the operating system said.
    """

    def __init__(self, operation: str, reason: str | OSError) -> None:
        self.operation = operation
        self.reason = str(reason)
        super().__init__(f"{operation}: {reason}")


class Unknown(HostspecError):
    """There is no such object.

    Attributes:
        kind: ``"layer"``, ``"image"``, ``"container"`` or the kind of item that was asked for.
        name: The ID or name that was asked for.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"{kind} not known: {name!r}")


class Duplicate(HostspecError):
    """An ID or a name is already taken.

    Attributes:
        kind: ``"ID"`` or ``"name"``.
        name: The ID or name.
        holder: The ID of the object that has it, or ``None`` when not known.
    """

    def __init__(self, kind: str, name: str, holder: str | None = None) -> None:
        self.kind = kind
        self.name = name
        self.holder = holder
        by = f" by {holder}" if holder and holder != name else ""
        super().__init__(f"that {kind} is already in use{by}: {name!r}")


class InUse(HostspecError):
    """An object cannot be removed because others stand on it.

    Attributes:
        kind: What cannot be removed: ``"layer"``, ``"image"``, ``"container"``.
        name: Its ID.
        users: Who uses it: IDs, or paths of mounts.
        how: How they use it, for the message.
    """

    def __init__(self, kind: str, name: str, users: Sequence[str], how: str = "is in use by") -> None:
        self.kind = kind
        self.name = name
        self.users = tuple(users)
        self.how = how
        super().__init__(f"{kind} {name} {how} {', '.join(self.users)}")


class LayerInUse(InUse):
    """Layers, images, containers or mounts stand on a layer that was to be removed."""

    def __init__(self, name: str, users: Sequence[str], how: str = "is in use by") -> None:
        super().__init__("layer", name, users, how)


class StoreReadOnly(HostspecError):
    """The store, or the record in it, may not be written.

    Attributes:
        path: The store's directory.
    """

    def __init__(self, path: str, reason: str = "store is read-only") -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class StoreCorrupt(HostspecError):
    """A file of the store cannot be understood.

    Attributes:
        path: The file.
        reason: What is wrong with it and the way out.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@contextmanager
def failing(operation: str) -> Iterator[None]:
    """Turn an OSError in the block into DriverFailed.

    Args:
        operation: What is being done, with its object (``"mount layer 3f2a…"``).
    """
    try:
        yield
    except OSError as error:
        raise DriverFailed(operation, error) from error
