"""Where a file's content lies on the device (``linux/fiemap.h``, filefrag(8))."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Extent", "extents"]

_FIEMAP = 0xC020_660B  # _IOWR("f", 11, struct fiemap): both directions, hence the same everywhere

_HEADER = struct.Struct("=QQIIII")  # start, length, flags, extents mapped, room for extents, reserved
_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_ROOM = 256
_SYNC = 0x1
_LAST = 0x1
_UNKNOWN = 0x2
_DELAYED = 0x4
_INLINE = 0x200
_SHARED = 0x2000
_TO_THE_END = (1 << 64) - 1


class Extent(NamedTuple):
    """A run of blocks."""

    physical: int
    """Byte on the file system's device space where it starts."""
    length: int
    """Bytes."""
    shared: bool
    """More than one reference to it, from this file or another."""


def extents(fd: int) -> Iterator[Extent]:
    """Yield the extents of a file, those left out that are part of its metadata (small files).

    What is not written yet is written first, as it has no place until then.

    Raises:
        OSError: EOPNOTSUPP where the file system does not tell.
    """
    start = 0
    while True:
        answer = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
        _HEADER.pack_into(answer, 0, start, _TO_THE_END - start, _SYNC, 0, _ROOM, 0)
        fcntl.ioctl(fd, _FIEMAP, answer)
        mapped = _HEADER.unpack_from(answer)[3]
        flags = 0
        for index in range(mapped):
            logical, physical, length, flags = _EXTENT.unpack_from(
                answer, _HEADER.size + index * _EXTENT.size
            )
            start = logical + length
            if not flags & (_UNKNOWN | _DELAYED | _INLINE):
                yield Extent(physical, length, bool(flags & _SHARED))
        if not mapped or flags & _LAST:
            return
