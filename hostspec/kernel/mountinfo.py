"""The mount table of this process: ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).

Needs no capability. Paths are those that this process sees, hence below its root directory.
"""

from __future__ import annotations

import os
import re
import struct
from typing import NamedTuple

from hostspec.kernel.syscalls import AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, buffer, check, libc

__all__ = [
    "MountEntry",
    "filesystem_device",
    "is_mountpoint",
    "mount_at",
    "mount_holding",
    "mount_options_at",
    "mount_points",
    "mount_table",
]

_MOUNT_TABLE = "/proc/self/mountinfo"
_ESCAPE = rb"\\([0-7]{3})"

_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_BYTES = 256
_STATX_ATTRIBUTES = struct.Struct("=8xQ")
_STATX_ATTRIBUTES_MASK = struct.Struct("=56xQ")


class MountEntry(NamedTuple):
    """One line of the mount table."""

    mount_id: int
    """The kernel's number for this mount; unique among those that exist."""
    parent_id: int
    """Number of the mount on which this one stands."""
    device: str
    """Of the file system, ``MAJOR:MINOR``; for all subvolumes of a btrfs the same, unlike stat(2)'s."""
    root: str
    """The directory of the file system that is the mount's root."""
    mount_point: str
    """Where it is mounted."""
    options: tuple[str, ...]
    """Options of this mount (``ro``, ``nosuid``, ``idmapped`` …)."""
    filesystem: str
    """Type of the file system."""
    source: str
    """What was mounted, as far as the file system has such a thing."""
    super_options: tuple[str, ...]
    """Options of the file system, the same for all its mounts."""


def mount_table() -> list[MountEntry]:
    """Return every mount that this process sees, in the order in which they were made."""
    return [_entry(line) for line in _table_lines()]


def mount_points(under: str) -> list[str]:
    """Return the mount points at and below a directory, in an order in which they can be unmounted.

    Deepest first; a place that is mounted on twice is there twice.

    Args:
        under: An absolute path without symbolic links, as the kernel shows mount points.
    """
    top = under.rstrip("/")
    below = f"{top}/"
    # Parsing thousands of lines only to drop them would be the whole cost.
    points = (_mount_point(line) for line in _table_lines())
    found = [point for point in points if point == (top or "/") or point.startswith(below)]
    found.reverse()
    found.sort(key=lambda point: point.count("/"), reverse=True)
    return found


def mount_at(path: str) -> MountEntry | None:
    """Return the topmost mount whose mount point is exactly ``path``, or ``None``."""
    lines = [line for line in _table_lines() if _mount_point(line) == path]
    return _entry(lines[-1]) if lines else None


def mount_holding(path: str) -> MountEntry | None:
    """Return the mount on which a path lies, or will lie when it is made.

    Args:
        path: An absolute path without symbolic links.

    Returns:
        ``None`` where the mount table does not tell.
    """
    inside = f"{path.rstrip('/')}/"
    nearest, longest = b"", 0
    for line in _table_lines():
        point = _mount_point(line)
        # Of mounts at the same place the last one is on top.
        if len(point) >= longest and inside.startswith(f"{point.rstrip('/')}/"):
            nearest, longest = line, len(point)
    return _entry(nearest) if nearest else None


def mount_options_at(path: str) -> tuple[str, ...]:
    """Return the options of the topmost mount at ``path``: its own, then its file system's.

    Empty when nothing is mounted there.
    """
    entry = mount_at(path)
    return () if entry is None else (*entry.options, *entry.super_options)


def filesystem_device(path: str) -> str:
    """Return the device number of the file system that a path is on, ``MAJOR:MINOR``.

    Paths of which it is the same are on one file system, whatever mount or subvolume leads there.

    Raises:
        OSError: The path cannot be looked at.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as facts:
            mount_id = next(fact.split()[1] for fact in facts if fact.startswith(b"mnt_id:"))
        device = os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
    for line in _table_lines():
        number, _, on_device, _ = line.split(b" ", 3)
        if number == mount_id:
            return on_device.decode("ascii")
    # A mount that is in no table, such as a detached one.
    return f"{os.major(device)}:{os.minor(device)}"


def is_mountpoint(path: str) -> bool:
    """Tell whether ``path`` is the root of a mount, bind mounts included.

    A path that does not exist is none; a symbolic link is not followed.

    Raises:
        OSError: The path cannot be looked at (EACCES, ENOTCONN of a dead FUSE mount …).
    """
    answer = buffer(_STATX_BYTES)
    flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT
    try:
        check(libc().statx(AT_FDCWD, os.fsencode(path), flags, 0, answer), path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    (attributes,) = _STATX_ATTRIBUTES.unpack_from(answer)
    (known,) = _STATX_ATTRIBUTES_MASK.unpack_from(answer)
    if known & _STATX_ATTR_MOUNT_ROOT:
        return bool(attributes & _STATX_ATTR_MOUNT_ROOT)
    # Before Linux 5.8 the kernel does not say.
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return mount_at(real) is not None


def _table_lines() -> list[bytes]:
    with open(_MOUNT_TABLE, "rb") as table:
        # Not splitlines(): the kernel leaves a carriage return in a name as it is.
        return [line for line in table.read().split(b"\n") if line]


def _mount_point(line: bytes) -> str:
    return _unescape(line.split(b" ", 5)[4])


def _entry(line: bytes) -> MountEntry:
    fields = line.split(b" ")
    # A varying number of optional fields ends with a lone hyphen.
    separator = fields.index(b"-", 6)
    filesystem, source, super_options = fields[separator + 1 : separator + 4]
    return MountEntry(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=_unescape(fields[2]),
        root=_unescape(fields[3]),
        mount_point=_unescape(fields[4]),
        options=tuple(_unescape(fields[5]).split(",")),
        filesystem=_unescape(filesystem),
        source=_unescape(source),
        super_options=tuple(_unescape(super_options).split(",")),
    )


def _unescape(field: bytes) -> str:
    """Decode a field, in which the kernel writes space, tab, newline, ``#`` and backslash as octal."""
    if b"\\" in field:
        field = re.sub(_ESCAPE, lambda match: bytes((int(match[1], 8),)), field)
    return os.fsdecode(field)
