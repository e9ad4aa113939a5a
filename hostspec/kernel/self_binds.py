"""Directories mounted on themselves, which is how the Go library makes a driver's home private.

Needs CAP_SYS_ADMIN. Whoever opens a store with that library binds the home on itself and may leave it so
(``pkg/mount/sharedsubtree_linux.go`` in containers/storage).
"""

from __future__ import annotations

import errno
import os

from hostspec.kernel.mountinfo import MountEntry, mount_points, mount_table
from hostspec.kernel.mounts import MS_PRIVATE, bind, mount, unmount

__all__ = ["bind_on_itself", "unbind_from_itself"]


def bind_on_itself(directory: str) -> None:
    """Mount a directory on itself, if it is no mount and nothing is mounted in it.

    Raises:
        OSError: The kernel refused.
    """
    real = os.path.realpath(directory)
    if mount_points(real):
        return
    bind(real, real)
    mount(None, real, None, MS_PRIVATE)


def unbind_from_itself(directory: str) -> None:
    """Unmount a directory from itself, if nothing else is mounted in it.

    A file system that somebody mounted there is left alone.

    Raises:
        OSError: The kernel refused.
    """
    real = os.path.realpath(directory)
    if mount_points(real) != [real] or not _is_bound_on_itself(real):
        return
    try:
        unmount(real)
    except OSError as error:
        # Somebody works in there, or was faster.
        if error.errno not in {errno.EBUSY, errno.EINVAL}:
            raise


def _is_bound_on_itself(path: str) -> bool:
    by_number = {entry.mount_id: entry for entry in mount_table()}
    top = next((entry for entry in by_number.values() if entry.mount_point == path), None)
    below = by_number.get(top.parent_id) if top else None
    return top is not None and below is not None and _shows(below, path) == _shows(top, path)


def _shows(entry: MountEntry, path: str) -> tuple[str, str]:
    """Return what a mount shows at a path: the file system's device, and where in it."""
    inside = os.path.relpath(path, entry.mount_point)
    return entry.device, os.path.normpath(os.path.join(entry.root, inside))
