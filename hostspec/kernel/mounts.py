"""Mounting: mount(2), umount2(2) and mount namespaces.

The calls by file descriptors are in :mod:`hostspec.kernel.mountfds`, the mount table in
:mod:`hostspec.kernel.mountinfo`.
"""

from __future__ import annotations

import errno
import os
import time

from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.syscalls import check, libc

__all__ = [
    "A_MOMENT",
    "MAX_MOUNT_DATA_BYTES",
    "MS_BIND",
    "MS_MOVE",
    "MS_NOATIME",
    "MS_NODEV",
    "MS_NODIRATIME",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_RELATIME",
    "MS_REMOUNT",
    "MS_SHARED",
    "MS_SLAVE",
    "bind",
    "mount",
    "private_mount_namespace",
    "unmount",
    "unmount_all",
]

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000

A_MOMENT = 0.5
"""For how many seconds a mount may be busy though nobody uses it: a program that another thread is starting
has all of this process's descriptors, until it is executed."""
_SECONDS_BETWEEN_TRIES = 0.002

MAX_MOUNT_DATA_BYTES = os.sysconf("SC_PAGE_SIZE") - 1
"""What mount(2) takes of its option string; it cuts off the rest without a word."""

_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8
_CLONE_NEWNS = 0x20000

_KEPT_BY_READ_ONLY_BIND = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_NODIRATIME, MS_NODIRATIME),
    (os.ST_RELATIME, MS_RELATIME),
)
"""Flags as statvfs(3) tells them, and as mount(2) wants them."""


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change a mount. Needs CAP_SYS_ADMIN.

    Args:
        source: What to mount; ``None`` where the kernel ignores it.
        target: The mount point; a symbolic link is followed.
        fstype: Type of the file system; ``None`` where the kernel ignores it.
        flags: ``MS_*``, OR-ed.
        data: Options of the file system, joined by commas.

    Raises:
        OSError: The kernel refused, or ``data`` is longer than it would read (E2BIG).
    """
    encoded = os.fsencode(data)
    if len(encoded) > MAX_MOUNT_DATA_BYTES:
        message = f"mount options are {len(encoded)} bytes, and the kernel reads {MAX_MOUNT_DATA_BYTES}"
        raise OSError(errno.E2BIG, message, target)
    result = libc().mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else os.fsencode(fstype),
        flags,
        encoded or None,
    )
    check(result, target)


def unmount(path: str, *, lazy: bool = False, patience: float = 0) -> None:
    """Unmount the topmost mount at ``path``. Needs CAP_SYS_ADMIN.

    Args:
        path: The mount point; a symbolic link is refused (EINVAL).
        lazy: Take it out of the tree now and release it when its last user is gone.
        patience: For how many seconds to try again while it is used; see :data:`A_MOMENT`.

    Raises:
        OSError: EBUSY while it is used, EINVAL when it is no mount point.
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    end = time.monotonic() + patience
    while True:
        try:
            check(libc().umount2(os.fsencode(path), flags), path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def unmount_all(under: str) -> None:
    """Unmount everything at and below ``under``, lazily where it is busy. Needs CAP_SYS_ADMIN."""
    for path in mount_points(under):
        try:
            unmount(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            unmount(path, lazy=True)


def bind(source: str, target: str, *, read_only: bool = False, recursive: bool = False) -> None:
    """Show ``source`` at ``target`` too. Needs CAP_SYS_ADMIN.

    After an error nothing is mounted.

    Args:
        source: A file or directory.
        target: An existing file or directory of the same kind.
        read_only: Refuse writes through ``target`` (not through mounts below it).
        recursive: With the mounts below ``source``.
    """
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    if not read_only:
        return
    # A remount replaces all flags, and one that a user namespace locked may not be dropped.
    present = os.statvfs(target).f_flag
    kept = sum(flag for told, flag in _KEPT_BY_READ_ONLY_BIND if present & told)
    try:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
    except OSError:
        unmount(target, lazy=True)
        raise


def private_mount_namespace() -> None:
    """Give the calling thread a mount namespace of its own, whose mounts nobody else sees.

    Needs CAP_SYS_ADMIN. Threads and processes made from now on by this thread share it;
    threads that already run stay in the old one. It ends, with all its mounts, when
    the last of them does.
    """
    check(libc().unshare(_CLONE_NEWNS))
    mount(None, "/", None, MS_REC | MS_PRIVATE)
