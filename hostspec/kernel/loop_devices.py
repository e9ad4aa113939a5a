"""Loop devices: a file as a block device (loop(4), ``include/uapi/linux/loop.h``).

Needs CAP_SYS_ADMIN and Linux 5.8. Nothing is counted and nothing has to be undone: a device frees itself
when its last user, a descriptor or a mount, is gone, however that came about.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

__all__ = ["attached_loop_device", "loop_device"]

_CONTROL = "/dev/loop-control"
_SYSFS = "/sys/block"
_GET_STATUS64 = 0x4C05
_CONFIGURE = 0x4C0A
_CTL_GET_FREE = 0x4C82

_INFO = struct.Struct("=QQQQQIIII64s64s32s16x")  # device, inode … flags, file name, two names for ciphers
_CONFIG = struct.Struct("=II232s64x")  # descriptor, block size in bytes, _INFO
_READ_ONLY = 0x1
_AUTOCLEAR = 0x4
_MAX_TRIES = 100


@contextlib.contextmanager
def loop_device(image_fd: int, *, read_only: bool = False) -> Iterator[str]:
    """Give the loop device of a file while the context lasts: the one that it has, else a new one.

    Two devices on one file would be two file systems that overwrite each other. So meanwhile the file is
    locked (flock(2)) against others that call this, and what is mounted from the device inside the context
    keeps the device: the next caller gets the same one, and the kernel the same file system.

    Args:
        image_fd: A regular file, opened for reading or, unless ``read_only``, for writing too.
        read_only: Refuse writes to a new device.

    Yields:
        Path of the device.

    Raises:
        OSError: There are no loop devices here, or the kernel refused.
    """
    fcntl.flock(image_fd, fcntl.LOCK_EX)
    try:
        found = _find(image_fd) or _attach(image_fd, read_only=read_only)
        try:
            yield found[0]
        finally:
            os.close(found[1])
    finally:
        fcntl.flock(image_fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def attached_loop_device(image_fd: int) -> Iterator[str | None]:
    """Give the loop device that a file has, or ``None``; as :func:`loop_device`, but attach nothing.

    Who got ``None`` knows that nobody who calls these functions uses the file before the context ends.
    """
    fcntl.flock(image_fd, fcntl.LOCK_EX)
    try:
        found = _find(image_fd)
        try:
            yield None if found is None else found[0]
        finally:
            if found is not None:
                os.close(found[1])
    finally:
        fcntl.flock(image_fd, fcntl.LOCK_UN)


def _find(image_fd: int) -> tuple[str, int] | None:
    """Return path and descriptor of the device that a file is attached to; the descriptor keeps it so."""
    wanted = os.fstat(image_fd)
    for name in os.listdir(_SYSFS):
        if not name.startswith("loop") or not os.path.exists(f"{_SYSFS}/{name}/loop"):
            continue
        path = f"/dev/{name}"
        try:
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # freed meanwhile
        # Only now can it not be freed, or be given to another file, between the look and the use.
        if _attached_to(device) == (wanted.st_dev, wanted.st_ino):
            return path, device
        os.close(device)
    return None


def _attached_to(device: int) -> tuple[int, int] | None:
    """Return device number and inode of the file behind a loop device, or ``None`` for a free one."""
    answer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _GET_STATUS64, answer)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    file_device, inode = _INFO.unpack_from(answer)[:2]
    return file_device, inode


def _attach(image_fd: int, *, read_only: bool) -> tuple[str, int]:
    """Attach a file to a free device, and return the device's path and a descriptor that keeps it."""
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    name = os.fsencode(os.readlink(f"/proc/self/fd/{image_fd}"))[-63:]  # shown by losetup(8)
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"")
    config = _CONFIG.pack(image_fd, 0, info)
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_MAX_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
            device = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another process was faster
                    raise
            else:
                return path, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device could be had", _CONTROL)
