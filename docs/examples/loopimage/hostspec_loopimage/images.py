"""File systems in files: made, cloned, grown, and mounted without a mount point.

All that is mounted from one image goes through one loop device, hence is one file system to the kernel, in
whatever process or mount namespace (:func:`hostspec.kernel.loop_devices.loop_device`). The superblock is
always writable, so that read-only and writable mounts can stand beside each other; who is to write, each
mount says.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.kernel.filesystems import sync_filesystem
from hostspec.kernel.loop_devices import attached_loop_device, loop_device
from hostspec.kernel.mountfds import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_RDONLY,
    fsconfig_create,
    fsconfig_flag,
    fsconfig_string,
    fsmount,
    fsopen,
)
from hostspec.kernel.reflink import CopyWay, copy_content

__all__ = ["FILESYSTEMS", "clone", "grow", "make_blank", "mounted_image"]

FILESYSTEMS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
}
"""How each is made."""

_MOUNT_FLAGS = {
    # Deleted files give their blocks back to the file system below. Tables that the kernel would go on
    # writing in the background would make every clone different from what it was cloned from.
    "ext4": ("discard", "noinit_itable"),
    # A clone has the UUID of its original.
    "xfs": ("discard", "nouuid"),
}
_NO_JOURNAL_REPLAY = "norecovery"

_XFS_GROW_DATA = 0x4010586E  # XFS_IOC_FSGROWFSDATA
_BLOCKS_AND_INODE_PERCENT = struct.Struct("=QI4x")
_XFS_INODE_PERCENT = 25  # what mkfs.xfs gives file systems below 1 TiB

_MAX_TRIES = 5


def make_blank(image: str, filesystem: str, size: int) -> None:
    """Make an image of an empty file system.

    Args:
        image: Path of a new file.
        filesystem: One of :data:`FILESYSTEMS`.
        size: Its size in bytes; the file is sparse.

    Raises:
        OSError: ``mkfs`` is missing or failed (with its own words), or the kernel refused.
    """
    with open(image, "xb") as file:
        file.truncate(size)
    _run(*FILESYSTEMS[filesystem], image)
    if filesystem == "ext4":
        with mounted_image(image, filesystem) as mount:
            os.rmdir(f"/proc/self/fd/{mount}/lost+found")


def clone(source: str, target: str, filesystem: str) -> None:
    """Make an image like another, which may be mounted and written to meanwhile.

    It is what a power failure now would leave of the original once that is synced, and the journal makes it
    consistent at its first mount. Nothing is frozen: a process that dies would leave it so.

    Args:
        source: An image.
        target: Path of a new file.
        filesystem: What is in it.

    Raises:
        OSError: The operating system refused; EBUSY where there are no reflinks, and the original is
            written to faster than it can be copied.
    """
    with open(source, "rb") as original:
        for _ in range(_MAX_TRIES):
            with open(target, "wb") as copy, attached_loop_device(original.fileno()) as device:
                # While nobody can mount it anew.
                if device is not None:
                    mount = _mount(device, filesystem, writable=False)
                    try:
                        sync_filesystem(f"/proc/self/fd/{mount}/.")
                    finally:
                        os.close(mount)
                before = os.fstat(original.fileno())
                way = copy_content(original.fileno(), copy.fileno(), before.st_size)
                after = os.fstat(original.fileno())
            if way is CopyWay.REFLINK or device is None or before.st_mtime_ns == after.st_mtime_ns:
                return
        raise OSError(errno.EBUSY, "is being written to, and its file system has no reflinks", source)


def grow(image: str, filesystem: str, size: int) -> None:
    """Make an image larger, and the file system in it too.

    Args:
        image: Not used by others.
        filesystem: What is in it.
        size: Its new size in bytes.

    Raises:
        OSError: A program is missing or failed (with its own words), or the kernel refused.
    """
    os.truncate(image, size)
    with mounted_image(image, filesystem) as mount:
        if filesystem == "xfs":
            root = os.open(f"/proc/self/fd/{mount}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                blocks = size // os.fstatvfs(root).f_bsize
                fcntl.ioctl(root, _XFS_GROW_DATA, _BLOCKS_AND_INODE_PERCENT.pack(blocks, _XFS_INODE_PERCENT))
            finally:
                os.close(root)
    if filesystem == "ext4":
        # Mounted, it grows only for who has CAP_SYS_RESOURCE, which containers often lack. By force, since
        # it was not checked; but the mount has just replayed its journal.
        _run("resize2fs", "-f", image)


def _run(program: str, *arguments: str) -> None:
    finished = subprocess.run(
        [program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        errors="replace",
        check=False,
    )
    if finished.returncode:
        reason = finished.stderr.strip() or f"exit status {finished.returncode}"
        raise OSError(errno.EIO, f"{program}: {reason}")


@contextmanager
def mounted_image(
    image: str, filesystem: str, *, read_only: bool = False, untouched: bool = False
) -> Iterator[int]:
    """Give a detached mount of an image, for :func:`~hostspec.kernel.mountfds.move_mount` or to look at.

    Args:
        image: Its path.
        filesystem: What is in it.
        read_only: Refuse writes through this mount.
        untouched: Write nothing into the image whatever happens, its journal included.

    Raises:
        OSError: The kernel refused.
    """
    image_fd = os.open(image, (os.O_RDONLY if untouched else os.O_RDWR) | os.O_CLOEXEC)
    try:
        with loop_device(image_fd, read_only=untouched) as device:
            mount = _mount(device, filesystem, writable=not read_only, untouched=untouched)
    finally:
        os.close(image_fd)
    try:
        yield mount
    finally:
        os.close(mount)


def _mount(device: str, filesystem: str, *, writable: bool, untouched: bool = False) -> int:
    context = fsopen(filesystem)
    try:
        fsconfig_string(context, "source", device)
        for flag in _MOUNT_FLAGS[filesystem]:
            fsconfig_flag(context, flag)
        if untouched:
            fsconfig_flag(context, "ro")
            fsconfig_flag(context, _NO_JOURNAL_REPLAY)
        fsconfig_create(context)
        return fsmount(context, MOUNT_ATTR_NOATIME | (0 if writable else MOUNT_ATTR_RDONLY))
    finally:
        os.close(context)
