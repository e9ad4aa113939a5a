"""What file system a path is on, and writing it to disk (statfs(2), syncfs(2)). No capability is needed."""

from __future__ import annotations

import os
import struct

from hostspec.kernel.syscalls import buffer, check, libc

__all__ = ["filesystem_name", "sync_filesystem"]

_STATFS_BYTES = 256
_TYPE = struct.Struct("@L")

# statfs(2) and the kernel's include/uapi/linux/magic.h.
_NAMES = {
    0x0000_EF53: "ext4",
    0x5846_5342: "xfs",
    0x9123_683E: "btrfs",
    0x794C_7630: "overlayfs",
    0x0102_1994: "tmpfs",
    0x8584_58F6: "ramfs",
    0x6573_5546: "fuse",
    0x0000_6969: "nfs",
    0xFF53_4D42: "cifs",
    0xFE53_4D42: "smb2",
    0x2FC1_2FC1: "zfs",
    0xF2F5_2010: "f2fs",
    0xCA45_1A4E: "bcachefs",
    0xE0F5_E1E2: "erofs",
    0x7371_7368: "squashfs",
    0x0000_F15F: "ecryptfs",
    0x6165_676C: "pstore",
    0x0000_4D44: "vfat",
    0x0102_1997: "9p",
    0x0000_9FA0: "proc",
    0x6265_6572: "sysfs",
    0x00C3_6400: "ceph",
    0x0116_1970: "gfs2",
    0x3153_464A: "jfs",
    0x5265_4973: "reiserfs",
}


def filesystem_name(path: str) -> str:
    """Return the name of the file system that a path is on, or its number in hexadecimal (``"0x1234"``).

    ext2, ext3 and ext4 cannot be told apart and are all ``"ext4"``.
    """
    answer = buffer(_STATFS_BYTES)
    check(libc().statfs(os.fsencode(path), answer), path)
    (number,) = _TYPE.unpack_from(answer)
    number &= 0xFFFF_FFFF
    return _NAMES.get(number, f"{number:#x}")


def sync_filesystem(path_or_fd: str | int) -> None:
    """Write everything of the file system on which a file or directory is to disk, and wait for it.

    Raises:
        OSError: The kernel refused, or writing failed since the file was opened (EIO, ENOSPC).
    """
    if isinstance(path_or_fd, int):
        check(libc().syncfs(path_or_fd))
        return
    descriptor = os.open(path_or_fd, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check(libc().syncfs(descriptor), path_or_fd)
    finally:
        os.close(descriptor)
