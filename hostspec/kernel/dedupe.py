"""Letting files that hold the same bytes share their blocks (ioctl_fideduperange(2)).

The kernel compares before it shares, and changes neither content nor times, so files may be in use.
No capability is needed for one's own files, CAP_SYS_ADMIN for those of others. xfs and btrfs can.
"""

from __future__ import annotations

import fcntl
import os
import struct

__all__ = ["share_blocks"]

_FIDEDUPERANGE = 0xC018_9436  # _IOWR(0x94, 54, struct file_dedupe_range): the same everywhere

_REQUEST = struct.Struct("=QQHHI")  # source offset, length, number of targets, reserved
_TARGET = struct.Struct("=qQQiI")  # descriptor, offset, bytes shared, status, reserved
_DIFFERS = 1
_CHUNK_BYTES = 16 << 20  # what btrfs does at most in one call


def share_blocks(source_fd: int, target_fd: int, size: int) -> int:
    """Let a file use the blocks of another, as far as both hold the same bytes from the beginning.

    Args:
        source_fd: Open for reading.
        target_fd: On the same file system; for reading is enough where the caller owns the file.
        size: Size of both in bytes.

    Returns:
        Bytes that they share now, those included that they shared before; 0 where they differ at once.

    Raises:
        OSError: EOPNOTSUPP, ENOTTY or EINVAL where the file system cannot, EXDEV between two of them,
            EROFS, EPERM or EACCES where the target may not be changed.
    """
    shared = 0
    while shared < size:
        length = min(size - shared, _CHUNK_BYTES)
        packet = bytearray(_REQUEST.size + _TARGET.size)
        _REQUEST.pack_into(packet, 0, shared, length, 1, 0, 0)
        _TARGET.pack_into(packet, _REQUEST.size, target_fd, shared, 0, 0, 0)
        fcntl.ioctl(source_fd, _FIDEDUPERANGE, packet)
        _, _, done, status, _ = _TARGET.unpack_from(packet, _REQUEST.size)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        if status == _DIFFERS or done == 0:
            break
        shared += done
    return shared
