"""Project quotas, limits on what lies below a directory (quotactl(2), ioctl_xfs_fsgetxattr(2)).

Each file and directory carries the number of a *project*, 0 for none. A directory with the flag for
inheriting gives its number to what is made in it, and the file system adds up and limits what each project
occupies. XFS has to be mounted with ``prjquota``, ext4 made with ``-O quota,project`` and mounted with
``prjquota``; without that limits are not enforced, or not even kept.

Over its limit a project gets ENOSPC on XFS and EDQUOT on ext4. A file cannot be renamed into an inheriting
directory of another project (EXDEV).

Reading a number needs no capability; setting one needs to own the file, in the first user namespace;
limits need CAP_SYS_ADMIN there. Linux 5.14 has quotactl_fd(2); before, the file system is named by its
device.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

from hostspec.kernel.syscalls import QUOTACTL_FD, buffer, check, libc, refusal

__all__ = ["ProjectUsage", "give_project", "project_of", "set_limits", "usage"]

# struct fsxattr (linux/fs.h): flags, extent size, extents, project, copy-on-write extent size, padding.
_FSXATTR = struct.Struct("=5I8x")
_GET_FSXATTR = 0x801C_581F
_SET_FSXATTR = 0x401C_5820
_INHERITS = 0x200

# struct if_dqblk (linux/quota.h): hard and soft limit in KiB, bytes in use, hard and soft limit of inodes,
# inodes in use, two times of grace, which of them count.
_QUOTA = struct.Struct("=8QI4x")
_LIMIT_UNIT = 1024
_LIMITS_COUNT = 1 | 4
_GET_QUOTA = 0x80_0007
_SET_QUOTA = 0x80_0008
_PROJECTS = 2


class ProjectUsage(NamedTuple):
    """What a project occupies and may occupy."""

    bytes: int = 0
    """Bytes in use."""
    inodes: int = 0
    """Inodes in use."""
    limit_bytes: int | None = None
    """Most bytes, or ``None`` for any number."""
    limit_inodes: int | None = None
    """Most inodes, or ``None`` for any number."""


def project_of(path: str) -> int:
    """Return the project of a file or directory, 0 for none.

    Raises:
        OSError: ENOTTY or EOPNOTSUPP where the file system has no projects.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _attributes(fd)[3]
    finally:
        os.close(fd)


def give_project(directory: str, project: int) -> None:
    """Put a directory into a project, with all that is made in it from now on.

    What is in it already stays where it is.

    Args:
        directory: The directory.
        project: From 1 to 2**32 - 1; 0 takes it out of its project.

    Raises:
        OSError: EOPNOTSUPP where the file system has no projects, EINVAL or EPERM in a user namespace.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags, *rest = _attributes(fd)
        flags = flags | _INHERITS if project else flags & ~_INHERITS
        rest[2] = project
        fcntl.ioctl(fd, _SET_FSXATTR, _FSXATTR.pack(flags, *rest))
    except OSError as error:
        raise OSError(error.errno, error.strerror, directory) from None
    finally:
        os.close(fd)


def set_limits(directory: str, project: int, *, size: int | None, inodes: int | None) -> None:
    """Limit what a project may occupy, instead of all limits that it had.

    Args:
        directory: Any directory on the file system.
        project: The project.
        size: Bytes, rounded up to whole KiB; ``None`` for no limit.
        inodes: Number of inodes; ``None`` for no limit.

    Raises:
        OSError: ESRCH or EINVAL where the file system keeps no project quotas, EPERM without CAP_SYS_ADMIN.
    """
    blocks = -(-(size or 0) // _LIMIT_UNIT)
    values = _QUOTA.pack(blocks, blocks, 0, inodes or 0, inodes or 0, 0, 0, 0, _LIMITS_COUNT)
    _quotactl(_SET_QUOTA, directory, project, values)


def usage(directory: str, project: int) -> ProjectUsage:
    """Return what a project occupies and may occupy.

    Args:
        directory: Any directory on the file system.
        project: The project.

    Raises:
        OSError: ESRCH or EINVAL where the file system keeps no project quotas.
    """
    try:
        answer = _quotactl(_GET_QUOTA, directory, project, bytes(_QUOTA.size))
    except FileNotFoundError:
        return ProjectUsage()  # XFS knows nothing of a project that never had anything
    blocks, _, used, limit_inodes, _, used_inodes, _, _, _ = _QUOTA.unpack(answer)
    return ProjectUsage(used, used_inodes, blocks * _LIMIT_UNIT or None, limit_inodes or None)


def _attributes(fd: int) -> tuple[int, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(fd, _GET_FSXATTR, bytes(_FSXATTR.size)))


def _quotactl(command: int, directory: str, project: int, values: bytes) -> bytes:
    """Make a call about one project, and return what it wrote into ``values``."""
    kind = command << 8 | _PROJECTS
    exchanged = buffer(_QUOTA.size)
    exchanged.raw = values
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = libc().syscall(QUOTACTL_FD, fd, kind, project, exchanged, 0, 0)
        if result < 0:
            failure = refusal(directory)
            if failure.errno != errno.ENOSYS:
                raise failure
            check(libc().quotactl(kind, os.fsencode(_device_of(fd)), project, exchanged), directory)
        return exchanged.raw
    finally:
        os.close(fd)


def _device_of(fd: int) -> str:
    """Return the path of the block device on which an open directory lies."""
    number = os.fstat(fd).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    with open(f"/sys/dev/block/{wanted}/uevent", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            if name == "DEVNAME":
                return f"/dev/{value}"
    raise OSError(errno.ENODEV, f"no name is known for the block device {wanted}")
