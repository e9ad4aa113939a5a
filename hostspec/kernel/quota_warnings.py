"""The kernel's warnings about quotas, as they happen (``Documentation/filesystems/quota.rst``).

The kernel multicasts them on generic netlink, family ``VFS_DQUOT``, from ext4, XFS and whatever else has its
quotas from the kernel's common code. btrfs, whose quotas are its own, sends none. They are sent in the
machine's first network namespace only; anybody there may listen.

Needs pyroute2, which is imported when somebody listens.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from hostspec.kernel.filesystems import filesystem_name

if TYPE_CHECKING:
    from pyroute2 import DQuotSocket

__all__ = ["Level", "QuotaWarning", "QuotaWarnings", "quota_warnings", "sends_warnings"]

_WITHOUT_WARNINGS = frozenset({"btrfs", "zfs", "bcachefs"})
_LARGEST_DATAGRAM = 1 << 16
_KINDS = ("user", "group", "project")


class Level(Enum):
    """What happened to usage."""

    LIMIT = "limit reached"
    GRACE = "too long above the soft limit"
    SOFT_LIMIT = "soft limit exceeded"
    BELOW_LIMIT = "below the limit again"
    BELOW_SOFT_LIMIT = "below the soft limit again"


# QUOTA_NL_* of include/uapi/linux/quota.h, from 1 on.
_MEANINGS = (
    ("inodes", Level.LIMIT),
    ("inodes", Level.GRACE),
    ("inodes", Level.SOFT_LIMIT),
    ("bytes", Level.LIMIT),
    ("bytes", Level.GRACE),
    ("bytes", Level.SOFT_LIMIT),
    ("inodes", Level.BELOW_LIMIT),
    ("inodes", Level.BELOW_SOFT_LIMIT),
    ("bytes", Level.BELOW_LIMIT),
    ("bytes", Level.BELOW_SOFT_LIMIT),
)


class QuotaWarning(NamedTuple):
    """One warning."""

    kind: str
    """Whose limit it is: ``"user"``, ``"group"`` or ``"project"``."""
    number: int
    """ID of that user, group or project."""
    resource: str
    """What is limited: ``"bytes"`` or ``"inodes"``."""
    level: Level
    """What happened."""
    device: int
    """The file system, as ``st_dev`` of what lies on it."""
    uid: int
    """The user who caused it, as the machine's first user namespace sees it."""


class QuotaWarnings:
    """Listens for warnings; see :func:`quota_warnings`."""

    def __init__(self, socket: DQuotSocket) -> None:
        """Take a socket that listens."""
        self._socket = socket

    def until(self, stop: int) -> Iterator[QuotaWarning]:
        """Yield each warning when it comes, until there is something to read from a descriptor.

        Warnings that came before that are yielded first. Where they come faster than they are taken, the
        kernel drops some.

        Args:
            stop: The descriptor; nothing is read from it.

        Raises:
            OSError: The kernel refused.
        """
        fd = self._socket.fileno()
        while True:
            ready, _, _ = select.select([fd, stop], [], [])
            if fd not in ready:
                return
            try:
                # By us and not by pyroute2's own event loop, so that a signal finds nothing half done.
                datagram = os.read(fd, _LARGEST_DATAGRAM)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # what was dropped is gone; the next ones are not
                    raise
                continue
            for message in self._socket.marshal.parse(datagram):
                warning = _understood(dict(message["attrs"]))
                if warning is not None:
                    yield warning


@contextmanager
def quota_warnings() -> Iterator[QuotaWarnings]:
    """Listen for the time of the block; what happens in it is not missed.

    Raises:
        ModuleNotFoundError: pyroute2 is missing.
        OSError: EOPNOTSUPP where the kernel sends no such warnings here.
    """
    from pyroute2 import AsyncDQuotSocket, DQuotSocket  # noqa: PLC0415 - takes 0.1 s, and may be missing
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    class Asynchronous(AsyncDQuotSocket):  # type: ignore[misc]
        module_err_level = "debug"  # the error says it

    class Socket(DQuotSocket):  # type: ignore[misc]
        async_class = Asynchronous

        def __init__(self) -> None:
            try:
                super().__init__()
            except NetlinkError:
                self.close()  # which pyroute2 leaves open
                raise

    try:
        socket = Socket()
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise OSError(error.code, os.strerror(error.code)) from None
        reason = (
            "the kernel sends no quota warnings here: it is built without CONFIG_QUOTA_NETLINK_INTERFACE, "
            "or this is not the machine's first network namespace"
        )
        raise OSError(errno.EOPNOTSUPP, reason) from None
    with socket:
        yield QuotaWarnings(socket)


def sends_warnings(path: str) -> bool:
    """Tell whether quotas of the file system that ``path`` is on would be warned about."""
    return filesystem_name(path) not in _WITHOUT_WARNINGS


def _understood(attributes: dict[str, int]) -> QuotaWarning | None:
    """Return what a message says, or ``None`` where a newer kernel says something else."""
    number = attributes.get("QUOTA_NL_A_WARNING", 0)
    kind = attributes.get("QUOTA_NL_A_QTYPE", len(_KINDS))
    if not 1 <= number <= len(_MEANINGS) or kind >= len(_KINDS):
        return None
    resource, level = _MEANINGS[number - 1]
    return QuotaWarning(
        kind=_KINDS[kind],
        number=attributes["QUOTA_NL_A_EXCESS_ID"],
        resource=resource,
        level=level,
        device=os.makedev(attributes["QUOTA_NL_A_DEV_MAJOR"], attributes["QUOTA_NL_A_DEV_MINOR"]),
        uid=attributes["QUOTA_NL_A_CAUSED_ID"],
    )
