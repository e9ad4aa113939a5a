"""The home, mounted on itself as the Go library does it.

That library binds its home on itself whenever it opens a store, without what is mounted below.
Whatever we had mounted there before would be hidden from then on: it could be neither seen nor
unmounted. So the home is made such a mount before anything is mounted in it, unless the user says
``skip_mount_home``; and that mount is taken away after the last one in it.

A rename in the home that falls into such a moment fails, since its two ends are seen through different
mounts; :func:`despite_mounts` does it again.

Source: ``drivers/overlay/overlay.go`` (``Init``) and ``pkg/mount/sharedsubtree_linux.go`` in
containers/storage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from hostspec.kernel.mountinfo import MountEntry, mount_points, mount_table
from hostspec.kernel.mounts import MS_PRIVATE, bind, mount, unmount

__all__ = ["bind_home", "despite_mounts", "release_home"]


def despite_mounts(rename: Callable[[], object]) -> None:
    """Rename within the home, even if somebody mounts or unmounts the home just now.

    Raises:
        OSError: The kernel refused.
    """
    try:
        rename()
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        rename()


def bind_home(home: str) -> None:
    """Mount the home on itself, if it is no mount and nothing is mounted in it.

    Raises:
        OSError: The kernel refused.
    """
    real = os.path.realpath(home)
    if mount_points(real):
        return
    bind(real, real)
    mount(None, real, None, MS_PRIVATE)


def release_home(home: str) -> None:
    """Unmount the home from itself, if nothing else is mounted in it.

    A file system that somebody mounted there is left alone.

    Raises:
        OSError: The kernel refused.
    """
    real = os.path.realpath(home)
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


def _shows(entry: MountEntry, path: str) -> tuple[str, str, str]:
    """Return what a mount shows at a path: type and source of the file system, and where in it."""
    inside = os.path.relpath(path, entry.mount_point)
    return entry.filesystem, entry.source, os.path.normpath(os.path.join(entry.root, inside))
