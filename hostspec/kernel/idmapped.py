"""Idmapped mounts: a tree of files shown under other owners (mount_setattr(2)).

Needs CAP_SYS_ADMIN in the user namespace of the file system, and a file system that can:
ext4, xfs since Linux 5.12, btrfs since 5.15, tmpfs since 6.3. An overlay cannot be
mapped itself; its lower directories can (5.19).
"""

from __future__ import annotations

import os

from hostspec.kernel.mountfds import open_tree, set_attributes

__all__ = ["idmapped_clone"]


def idmapped_clone(
    path_or_fd: str | int, userns_fd: int, *, recursive: bool = False, read_only: bool = False
) -> int:
    """Return a detached mount that shows a directory with its owners mapped.

    A file that is owned by ID ``c`` on disk shows the host ID which the user namespace gives
    to its own ID ``c``, and what is created through the mount by that host ID is ``c`` on
    disk. The descriptor works as a directory descriptor, as the argument of
    :func:`~hostspec.kernel.mountfds.move_mount`, and as an overlay layer (Linux 6.15).
    The mount is in no mount table and ends with its last descriptor.

    Args:
        path_or_fd: A directory or file, or a descriptor of it.
        userns_fd: From :func:`~hostspec.kernel.usernamespaces.user_namespace`.
        recursive: With the mounts below it, which must all be able to.
        read_only: Refuse writes through the mount.

    Raises:
        OSError: EINVAL where the file system cannot map IDs or ``path_or_fd`` is mapped already,
            EPERM without the capability, ENOSYS before Linux 5.12.
    """
    if isinstance(path_or_fd, int):
        clone = open_tree("", clone=True, recursive=recursive, dirfd=path_or_fd)
    else:
        clone = open_tree(path_or_fd, clone=True, recursive=recursive)
    try:
        set_attributes(clone, read_only=read_only or None, userns_fd=userns_fd, recursive=recursive)
    except OSError as error:
        os.close(clone)
        if isinstance(path_or_fd, str):
            error.filename = path_or_fd
        raise
    return clone
