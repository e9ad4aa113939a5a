"""Making overlay mounts, in the best way that this kernel has.

========================  =======  =============================================================
way                       Linux    how layers are named, and where idmapped clones are
========================  =======  =============================================================
``detached``              6.15     descriptors; clones stay detached
``descriptors``           6.13     descriptors; clones in a mount namespace that nobody else sees
``lowerdir+``             6.8      one text for each layer; clones as above
``string``                5.2      one text for all, by mount(2); clones as above
``classic``               4.0      one text for all, by mount(2); no clones, so no ID maps
========================  =======  =============================================================

The first mount of a process tries the ways from the best on; one that the kernel does not have is not
tried again. So finding out costs nothing where the kernel is new.

All but the last give the mount as a descriptor, detached, before it is put anywhere: nothing in between
is ever visible, and a killed process leaves nothing behind.

Texts are kept short, since the kernel takes 255 bytes for one of many and a page for all: layers are named
relative to the driver's home, by their short names, from a thread that has its working directory there.
Where that is still too long, they are opened and named by the numbers of their descriptors.

Sources: Linux ``fs/overlayfs/params.c``, ``fs/namespace.c`` (``clone_private_mount``),
``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from enum import Enum
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from hostspec.idmap import IdMap
from hostspec.kernel import mountfds, mounts
from hostspec.kernel.idmapped import idmapped_clone
from hostspec.kernel.mountfds import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from hostspec.kernel.usernamespaces import user_namespace
from hostspec_overlay.aside import in_directory, in_private_namespace
from hostspec_overlay.layout import Lower
from hostspec_overlay.options import NO_CHOICES, MountChoices

__all__ = [
    "MountPlan",
    "MountWay",
    "detached_overlay",
    "mount_overlay",
    "unavailable_ways",
    "ways",
]

_MAX_TEXT_BYTES = 255  # of one fsconfig(2) value
_UNSAFE_IN_TEXT = frozenset(",:\\")  # separators and escapes of overlayfs and mount(2)
_DESCRIPTORS = "/proc/self/fd"
_MOUNT_ATTR_NODIRATIME = 0x80

# What a kernel that lacks a step answers to it; any other error means that something else is wrong.
_MISSING = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM})

_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, mounts.MS_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, mounts.MS_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, mounts.MS_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, mounts.MS_NOEXEC),
    "noatime": (MOUNT_ATTR_NOATIME, mounts.MS_NOATIME),
    "nodiratime": (_MOUNT_ATTR_NODIRATIME, mounts.MS_NODIRATIME),
}
"""For each attribute, what fsmount(2) and what mount(2) call it."""

Made = TypeVar("Made")


class MountWay(Enum):
    """A way to make an overlay mount; in order, best first."""

    DETACHED = "detached"
    DESCRIPTORS = "descriptors"
    LOWERDIR_PLUS = "lowerdir+"
    STRING = "string"
    CLASSIC = "classic"


class MountPlan(NamedTuple):
    """An overlay mount that is to be made."""

    home: str
    """The driver's home: absolute path of a directory below which most layers lie."""
    lowers: Sequence[Lower]
    """Uppermost first; at least one, and without ``upper`` at least two."""
    upper: str | None = None
    """Absolute path of the directory that takes what is written; ``None`` for a read-only mount."""
    work: str | None = None
    """Absolute path of the kernel's own directory, on the file system of ``upper``."""
    choices: MountChoices = NO_CHOICES
    """Attributes and overlayfs options."""
    label: str = ""
    """SELinux label for every file, or ``""``."""
    idmap: IdMap = IdMap()
    """Shows the files of ``lowers`` under this map."""
    mapped_from: int = 0
    """Index of the first of ``lowers`` that ``idmap`` is for; those above carry host IDs already."""

    def overlay_options(self) -> Iterator[tuple[str, str | None]]:
        """Yield the options of overlayfs other than directories."""
        yield from self.choices.overlay
        if self.label:
            yield "context", self.label


_unavailable: dict[MountWay, str] = {}
"""Ways that this kernel turned out not to have, and what it said."""


def unavailable_ways() -> dict[MountWay, str]:
    """Return the ways that were tried in this process and that the kernel lacks, with its answer."""
    return dict(_unavailable)


def ways(mount_api: str, *, mapped: bool = False) -> list[MountWay]:
    """Return the ways to try, best first.

    Args:
        mount_api: The user's choice: a way's name for only that one, or ``"auto"``.
        mapped: An ID map is wanted.
    """
    if mount_api != "auto":
        return [MountWay(mount_api)]
    wanted = [way for way in MountWay if way not in _unavailable]
    return [way for way in wanted if not (mapped and way is MountWay.CLASSIC)]


def mount_overlay(plan: MountPlan, target: str, mount_api: str = "auto") -> None:
    """Mount an overlay at ``target``.

    Raises:
        OSError: The kernel refused, with its own explanation; nothing is mounted.
    """

    def make(way: MountWay) -> None:
        if not plan.idmap and way in {MountWay.STRING, MountWay.CLASSIC}:
            in_directory(plan.home, lambda: _mount_by_string(plan, target))
            return
        mount = _detached(plan, way)
        try:
            mountfds.move_mount(mount, target)
        finally:
            os.close(mount)

    _first_possible(make, ways(mount_api, mapped=bool(plan.idmap)))


def detached_overlay(plan: MountPlan, mount_api: str = "auto") -> int:
    """Return a descriptor of an overlay mount that is in no mount table and ends with the descriptor.

    Raises:
        OSError: The kernel refused, with its own explanation; ENOSYS where it has no detached mounts.
    """
    return _first_possible(lambda way: _detached(plan, way), ways(mount_api, mapped=bool(plan.idmap)))


def _first_possible(make: Callable[[MountWay], Made], candidates: Sequence[MountWay]) -> Made:
    refusals: list[OSError] = []
    for way in candidates:
        try:
            made = make(way)
        except OSError as refusal:
            refusals.append(refusal)
            if refusal.errno not in _MISSING:
                break
        else:
            # Only now is it known that the ways were to blame, and not what was asked for.
            _unavailable.update(zip(candidates, map(str, refusals), strict=False))
            return made
    raise _pointing_to_the_log(refusals[0])


def _pointing_to_the_log(refusal: OSError) -> OSError:
    """Say where to look, since overlayfs explains most of its refusals in the kernel's log only."""
    if refusal.errno != errno.EINVAL or "(" in str(refusal.strerror):
        return refusal
    message = f"{refusal.strerror}; the kernel's log may say why (dmesg, lines with 'overlayfs')"
    return OSError(refusal.errno, message, refusal.filename)


def _detached(plan: MountPlan, way: MountWay) -> int:
    if way is MountWay.CLASSIC:
        raise OSError(errno.ENOSYS, "this way of mounting has no detached mounts and no ID maps")
    if way is MountWay.DETACHED:
        with _Layers(plan, os.O_PATH) as layers:
            layers.clone(attach=False)
            return _configured(plan, layers.give_descriptors)
    if way is MountWay.DESCRIPTORS:

        def make() -> int:
            with _Layers(plan, os.O_RDONLY) as layers:
                layers.clone(attach=True)
                return _configured(plan, layers.give_descriptors)

        return in_private_namespace(make) if plan.idmap else make()
    if way is MountWay.LOWERDIR_PLUS:

        def make_by_texts() -> int:
            with _Layers(plan, os.O_PATH) as layers:
                layers.clone(attach=True)
                layers.enter_home()
                return _configured(plan, layers.give_texts)

        if plan.idmap:
            return in_private_namespace(make_by_texts)
        return in_directory(plan.home, make_by_texts)

    def make_by_string() -> int:
        _mount_by_string(plan, plan.home)
        return mountfds.open_tree(plan.home, clone=True)

    return in_private_namespace(make_by_string)


def _configured(plan: MountPlan, give_layers: Callable[[int], None]) -> int:
    """Make the file system in a context of its own, and return its detached mount."""
    context = mountfds.fsopen("overlay")
    try:
        mountfds.fsconfig_string(context, "source", "overlay")
        for name, value in plan.overlay_options():
            if value is None:
                mountfds.fsconfig_flag(context, name)
            else:
                mountfds.fsconfig_string(context, name, value)
        give_layers(context)
        mountfds.fsconfig_create(context)
        return mountfds.fsmount(context, sum(_ATTRIBUTES[each][0] for each in plan.choices.attributes))
    finally:
        os.close(context)


def _mount_by_string(plan: MountPlan, target: str) -> None:
    """Mount at ``target``; changes the working directory of this thread."""
    options = [
        name if value is None else f"{name}={_quoted(value)}" for name, value in plan.overlay_options()
    ]
    with _Layers(plan, os.O_PATH) as layers:
        layers.clone(attach=True)
        layers.enter_home()
        data = ",".join([layers.by_name(), *options])
        if len(os.fsencode(data)) > mounts.MAX_MOUNT_DATA_BYTES:
            data = ",".join([layers.by_number(), *options])
            os.chdir(_DESCRIPTORS)
        flags = sum(_ATTRIBUTES[each][1] for each in plan.choices.attributes)
        mounts.mount("overlay", target, "overlay", flags, data)


def _quoted(value: str) -> str:
    """Keep a comma in a value (in SELinux labels) from ending it."""
    return f'"{value}"' if "," in value else value


class _Layers:
    """The directories of a plan, as descriptors and as texts."""

    def __init__(self, plan: MountPlan, flags: int) -> None:
        """Take a plan; directories are opened with ``flags`` (O_PATH or O_RDONLY)."""
        self._plan = plan
        self._flags = flags | os.O_DIRECTORY | os.O_CLOEXEC
        self._clones: dict[str, int] = {}
        self._unmapped: dict[str, int] = {}
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_files.close()

    def clone(self, *, attach: bool) -> None:
        """Make the idmapped clones: one for each home, since all layers of a home lie below it.

        Args:
            attach: Put each clone over its home, as kernels before 6.15 want it: only in a private namespace.
        """
        plan = self._plan
        if not plan.idmap:
            return
        # Opened before a clone hides them.
        for path in (plan.upper, plan.work, *(lower.path for lower in plan.lowers[: plan.mapped_from])):
            if path is not None:
                self._unmapped[path] = self._keep(os.open(path, self._flags))
        namespace = user_namespace(plan.idmap)
        for home in dict.fromkeys(lower.home for lower in plan.lowers[plan.mapped_from :]):
            clone = self._keep(idmapped_clone(home, namespace))
            if attach:
                mountfds.move_mount(clone, home)
            self._clones[home] = clone

    def enter_home(self) -> None:
        """Make the driver's home, as this mount is to see it, the working directory of this thread."""
        os.chdir(self._clones.get(self._plan.home, self._plan.home))

    def give_descriptors(self, context: int) -> None:
        """Name every directory to a file system context by a descriptor."""
        for index in range(len(self._plan.lowers)):
            self._give(context, "lowerdir+", self._open_lower(index))
        for key, path in (("upperdir", self._plan.upper), ("workdir", self._plan.work)):
            if path is not None:
                self._give(context, key, self._open_unmapped(path))

    def give_texts(self, context: int) -> None:
        """Name every directory to a file system context by a text, seen from the home."""
        for index in range(len(self._plan.lowers)):
            mountfds.fsconfig_string(context, "lowerdir+", self._lower_text(index))
        for key, path in (("upperdir", self._plan.upper), ("workdir", self._plan.work)):
            if path is not None:
                mountfds.fsconfig_string(context, key, self._text(path))

    def by_name(self) -> str:
        """Return the options that name every directory, seen from the home."""
        lowers = ":".join(self._lower_text(index) for index in range(len(self._plan.lowers)))
        return ",".join([f"lowerdir={lowers}", *self._upper_options()])

    def by_number(self) -> str:
        """Return the options that name every directory by the number of its descriptor."""
        lowers = ":".join(str(self._keep(self._open_lower(i))) for i in range(len(self._plan.lowers)))
        return ",".join([f"lowerdir={lowers}", *self._upper_options()])

    def _upper_options(self) -> Iterator[str]:
        for key, path in (("upperdir", self._plan.upper), ("workdir", self._plan.work)):
            if path is not None:
                yield f"{key}={_DESCRIPTORS}/{self._descriptor(path)}"

    def _lower_text(self, index: int) -> str:
        lower = self._plan.lowers[index]
        if lower.home == self._plan.home and index >= self._plan.mapped_from and _fits(lower.name):
            return lower.name
        return f"{_DESCRIPTORS}/{self._keep(self._open_lower(index))}"

    def _text(self, path: str) -> str:
        name = os.path.relpath(path, self._plan.home)
        if self._plan.idmap or not _fits(name):
            return f"{_DESCRIPTORS}/{self._descriptor(path)}"
        return name

    def _descriptor(self, path: str) -> int:
        if path not in self._unmapped:
            self._unmapped[path] = self._keep(os.open(path, self._flags))
        return self._unmapped[path]

    def _open_lower(self, index: int) -> int:
        lower = self._plan.lowers[index]
        if index < self._plan.mapped_from or lower.home not in self._clones:
            return self._open_unmapped(lower.path)
        return os.open(lower.name, self._flags, dir_fd=self._clones[lower.home])

    def _open_unmapped(self, path: str) -> int:
        known = self._unmapped.get(path)
        return os.open(path, self._flags) if known is None else os.dup(known)

    def _give(self, context: int, key: str, descriptor: int) -> None:
        """Hand a descriptor over and close it at once: there may be more of them than a process may open."""
        try:
            mountfds.fsconfig_fd(context, key, descriptor)
        finally:
            os.close(descriptor)

    def _keep(self, descriptor: int) -> int:
        self._open_files.callback(os.close, descriptor)
        return descriptor


def _fits(name: str) -> bool:
    return len(os.fsencode(name)) <= _MAX_TEXT_BYTES and _UNSAFE_IN_TEXT.isdisjoint(name)
