"""The ioctls of btrfs that the driver needs (``linux/btrfs.h``, ``linux/btrfs_tree.h``).

Each function encodes, calls, and raises OSError with the path it was given. Numbers in the structures
are in the machine's byte order, except for those in items of a tree, which are little-endian.
Every argument structure is 4096 bytes, unless a layout below says otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "NestedSubvolume",
    "TreeItem",
    "create_snapshot",
    "create_subvolume",
    "destroy_subvolume",
    "is_read_only",
    "limit_referenced",
    "nested_subvolumes",
    "place_of_nested",
    "search_tree",
    "set_read_only",
    "subvolume_id",
]

# How an ioctl's number is put together: asm-generic/ioctl.h, and the architectures that differ.
_REVERSED_DIRECTIONS = os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc"))
_WRITE, _READ, _SIZE_BITS = (4, 2, 13) if _REVERSED_DIRECTIONS else (1, 2, 14)


def _number(direction: int, number: int, size: int) -> int:
    return direction << (16 + _SIZE_BITS) | size << 16 | 0x94 << 8 | number


_TREE_SEARCH = _number(_READ | _WRITE, 17, 4096)
_INO_LOOKUP = _number(_READ | _WRITE, 18, 4096)
_SNAP_CREATE_V2 = _number(_WRITE, 23, 4096)
_SUBVOL_CREATE_V2 = _number(_WRITE, 24, 4096)
_SUBVOL_GETFLAGS = _number(_READ, 25, 8)
_SUBVOL_SETFLAGS = _number(_WRITE, 26, 8)
_QGROUP_LIMIT = _number(_READ, 43, 48)  # the direction is the header's mistake
_GET_SUBVOL_ROOTREF = _number(_READ | _WRITE, 61, 4096)
_INO_LOOKUP_USER = _number(_READ | _WRITE, 62, 4096)
_SNAP_DESTROY_V2 = _number(_WRITE, 63, 4096)

_VOLUME_ARGUMENTS_V2 = struct.Struct("=qQQ32x4040s")  # descriptor, transaction, flags, (unused), name
_FLAGS = struct.Struct("=Q")
_READ_ONLY = 1 << 1

_INO_LOOKUP_ARGUMENTS = struct.Struct("=QQ4080x")  # tree, object
_ROOT_DIRECTORY = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root

_ROOTREF_ENTRY = struct.Struct("=QQ")  # subvolume, inode of the directory that it lies in
_ROOTREF_COUNT_AT = 8 + 255 * _ROOTREF_ENTRY.size
_LOOKUP_USER_HEADER = struct.Struct("=QQ256s")  # directory, subvolume, (answer) its name
_LOOKUP_USER_PATH = struct.Struct("=272x3824s")  # (answer) path of the directory

# tree; first and last object, offset, transaction; first and last type; how many items
_SEARCH_KEY = struct.Struct("=Q6QIII36x3992x")
_SEARCH_COUNT_AT = 64
_SEARCH_ITEMS_AT = 104
_SEARCH_HEADER = struct.Struct("=QQQII")  # transaction, object, offset, type, bytes that follow
_MOST_ITEMS = 4096
_LAST = (1 << 64) - 1

# qgroup (0: the one of the subvolume that the descriptor is in); flags; referenced, exclusive and two unused
_QGROUP_LIMIT_ARGUMENTS = struct.Struct("=QQQ24x")
_LIMITS_REFERENCED = 1 << 0
_NO_LIMIT = (1 << 64) - 1


class NestedSubvolume(NamedTuple):
    """A subvolume that lies directly in another, not in a third in between."""

    subvolume_id: int
    """Its number in the file system."""
    directory: int
    """Inode, in the outer subvolume, of the directory that it lies in."""


class TreeItem(NamedTuple):
    """An item found in one of the file system's trees."""

    object_id: int
    kind: int
    offset: int
    data: bytes


def create_subvolume(directory_fd: int, name: str) -> None:
    """Make an empty subvolume. Needs write permission on the directory.

    Raises:
        OSError: EEXIST, ENAMETOOLONG, ENOTTY where the directory is not on btrfs …
    """
    _call(directory_fd, _SUBVOL_CREATE_V2, _volume_arguments(name), name)


def create_snapshot(directory_fd: int, name: str, source_fd: int) -> None:
    """Make a writable snapshot of the subvolume whose root ``source_fd`` is.

    Subvolumes nested in the source come out as empty directories that cannot be changed.
    Needs write permission on the directory, and CAP_FOWNER or ownership of the source's root.

    Raises:
        OSError: EEXIST, EXDEV where the two are not on one file system …
    """
    _call(directory_fd, _SNAP_CREATE_V2, _volume_arguments(name, source_fd), name)


def destroy_subvolume(directory_fd: int, name: str) -> None:
    """Delete a subvolume with all that is in it; the kernel frees its blocks later.

    Needs CAP_SYS_ADMIN, or the mount option ``user_subvol_rm_allowed`` and write permission.

    Raises:
        OSError: ENOTEMPTY while another subvolume is nested in it, EROFS in a read-only one …
    """
    _call(directory_fd, _SNAP_DESTROY_V2, _volume_arguments(name), name)


def is_read_only(subvolume_fd: int) -> bool:
    """Tell whether a subvolume is marked read-only. Needs no capability."""
    flags = bytearray(_FLAGS.size)
    _call(subvolume_fd, _SUBVOL_GETFLAGS, flags)
    return bool(_FLAGS.unpack(flags)[0] & _READ_ONLY)


def set_read_only(subvolume_fd: int, read_only: bool) -> None:  # noqa: FBT001 - named by the function
    """Mark a subvolume read-only or writable. Needs CAP_FOWNER or ownership of its root."""
    _call(subvolume_fd, _SUBVOL_SETFLAGS, bytearray(_FLAGS.pack(_READ_ONLY if read_only else 0)))


def subvolume_id(fd: int) -> int:
    """Return the number of the subvolume that ``fd`` is in. Needs no capability."""
    arguments = bytearray(_INO_LOOKUP_ARGUMENTS.pack(0, _ROOT_DIRECTORY))
    _call(fd, _INO_LOOKUP, arguments)
    found: int = _INO_LOOKUP_ARGUMENTS.unpack(arguments)[0]
    return found


def nested_subvolumes(subvolume_fd: int) -> Iterator[NestedSubvolume]:
    """Yield the subvolumes that lie directly in one, in the order of their numbers.

    Needs no capability. Since Linux 4.18.
    """
    first = 0
    while True:
        arguments = bytearray(4096)
        _FLAGS.pack_into(arguments, 0, first)
        complete = True
        try:
            _call(subvolume_fd, _GET_SUBVOL_ROOTREF, arguments)
        except OSError as error:
            # It has filled the structure, and there are more.
            if error.errno != errno.EOVERFLOW:
                raise
            complete = False
        for index in range(arguments[_ROOTREF_COUNT_AT]):
            found = NestedSubvolume(*_ROOTREF_ENTRY.unpack_from(arguments, 8 + index * _ROOTREF_ENTRY.size))
            first = found.subvolume_id + 1
            yield found
        if complete:
            return


def place_of_nested(subvolume_fd: int, nested: NestedSubvolume) -> str:
    """Return the path of a nested subvolume, relative to the root of the outer one.

    Needs search and read permission on the directories in between. Since Linux 4.18.

    Args:
        subvolume_fd: The root of the outer subvolume.
        nested: What :func:`nested_subvolumes` yielded for it.

    Raises:
        OSError: ENAMETOOLONG where the path of the directory has more than 3823 bytes …
    """
    arguments = bytearray(4096)
    _LOOKUP_USER_HEADER.pack_into(arguments, 0, nested.directory, nested.subvolume_id, b"")
    _call(subvolume_fd, _INO_LOOKUP_USER, arguments)
    name = _LOOKUP_USER_HEADER.unpack_from(arguments)[2]
    directory = _LOOKUP_USER_PATH.unpack(arguments)[0]
    # The path of the directory ends with a slash, unless it is the root and hence empty.
    return os.fsdecode(_up_to_nul(directory) + _up_to_nul(name))


def search_tree(fd: int, tree: int, *, kind: int, offset: int | None = None) -> list[TreeItem]:
    """Return the items of one kind in a tree, as many as fit into 4 KiB. Needs CAP_SYS_ADMIN.

    Args:
        fd: Any directory on the file system.
        tree: Number of the tree.
        kind: Type of the items (``BTRFS_*_KEY``).
        offset: Only those whose key has this offset, or ``None`` for any.

    Raises:
        OSError: ENOENT where the file system has no such tree …
    """
    first, last = (0, _LAST) if offset is None else (offset, offset)
    arguments = bytearray(_SEARCH_KEY.pack(tree, 0, _LAST, first, last, 0, _LAST, kind, kind, _MOST_ITEMS))
    _call(fd, _TREE_SEARCH, arguments)
    (count,) = struct.unpack_from("=I", arguments, _SEARCH_COUNT_AT)
    items: list[TreeItem] = []
    at = _SEARCH_ITEMS_AT
    for _ in range(count):
        _, object_id, item_offset, item_kind, size = _SEARCH_HEADER.unpack_from(arguments, at)
        at += _SEARCH_HEADER.size
        items.append(TreeItem(object_id, item_kind, item_offset, bytes(arguments[at : at + size])))
        at += size
    # The kernel compares whole keys, so items of other kinds lie between the first and the last.
    return [item for item in items if item.kind == kind and first <= item.offset <= last]


def limit_referenced(fd: int, size: int | None) -> None:
    """Limit how many bytes the subvolume that ``fd`` is in may refer to; ``None`` lifts a limit.

    Needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENOTCONN or EINVAL where quotas are not on …
    """
    most = _NO_LIMIT if size is None else size
    _call(fd, _QGROUP_LIMIT, bytearray(_QGROUP_LIMIT_ARGUMENTS.pack(0, _LIMITS_REFERENCED, most)))


def _volume_arguments(name: str, source_fd: int = 0) -> bytearray:
    encoded = os.fsencode(name)
    if len(encoded) > 255:  # noqa: PLR2004 - NAME_MAX; the structure would take more
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return bytearray(_VOLUME_ARGUMENTS_V2.pack(source_fd, 0, 0, encoded))


def _call(fd: int, request: int, arguments: bytearray, name: str | None = None) -> None:
    """Make an ioctl that reads and writes ``arguments``; they hold the answer even where it fails."""
    try:
        fcntl.ioctl(fd, request, arguments)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None


def _up_to_nul(value: bytes) -> bytes:
    return value.partition(b"\0")[0]
