"""Subvolumes with everything in them, the subvolumes nested in them included.

The kernel takes one subvolume at a time. What a layer holds may be several: systemd makes
``/var/lib/machines`` a subvolume of its own wherever it can, also in a container.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec_btrfs import ioctls

__all__ = [
    "is_subvolume",
    "make_writable",
    "nested_paths",
    "opened",
    "opened_path",
    "snapshot",
]

_ROOT_INODE = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened_path(path: str) -> Iterator[int]:
    """Give a descriptor of a directory."""
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened(directory_fd: int, path: str = "") -> Iterator[int]:
    """Give a descriptor of a directory below another, of any depth, never through a symbolic link.

    Args:
        directory_fd: Where to start.
        path: Relative path; ``""`` for the directory itself.
    """
    here = os.open(".", _DIRECTORY, dir_fd=directory_fd)
    try:
        # Name by name: the kernel refuses paths longer than PATH_MAX.
        for name in filter(None, path.split("/")):
            deeper = os.open(name, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


def is_subvolume(status: os.stat_result) -> bool:
    """Tell whether something on btrfs is the root of a subvolume."""
    return status.st_ino == _ROOT_INODE


def nested_paths(root_fd: int) -> list[str]:
    """Return the paths of all subvolumes nested in one, at any depth, outer ones before inner ones.

    Costs one call for each subvolume, not for each file.

    Args:
        root_fd: The root of the outermost subvolume; the paths are relative to it.

    Raises:
        OSError: ENAMETOOLONG for one that lies deeper in its subvolume than 3823 bytes …
    """
    found: list[str] = []
    pending = [""]
    while pending:
        outer = pending.pop()
        with opened(root_fd, outer) as outer_fd:
            for nested in ioctls.nested_subvolumes(outer_fd):
                pending.append(os.path.join(outer, ioctls.place_of_nested(outer_fd, nested)))
                found.append(pending[-1])
    return found


def snapshot(source_fd: int, directory_fd: int, name: str) -> bool:
    """Make a writable snapshot of a subvolume and of all that are nested in it.

    The kernel's snapshot has an empty directory in the place of each nested subvolume,
    which cannot be changed, only removed. Here it gives way to a snapshot of that subvolume.

    Args:
        source_fd: Root of the subvolume.
        directory_fd: Where to make the snapshot.
        name: What to call it.

    Returns:
        False, with nothing done, where the source is no subvolume, or not on the same file system.

    Raises:
        OSError: The kernel refused; a part may be there.
    """
    if not is_subvolume(os.fstat(source_fd)):
        return False
    try:
        ioctls.create_snapshot(directory_fd, name, source_fd)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        if error.errno == errno.EPERM:
            message = "an ordinary user can make snapshots of own subvolumes only"
            raise PermissionError(error.errno, message, name) from error
        raise
    paths = nested_paths(source_fd)
    if not paths:
        return True
    with opened(directory_fd, name) as copy_fd:
        for path in paths:
            place, nested_name = os.path.split(path)
            with opened(source_fd, path) as nested_fd, opened(copy_fd, place) as place_fd:
                before = os.fstat(place_fd)
                os.rmdir(nested_name, dir_fd=place_fd)
                ioctls.create_snapshot(place_fd, nested_name, nested_fd)
                os.utime(place_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True


def make_writable(subvolume_fd: int) -> None:
    """Take the read-only mark off a subvolume, under which nothing in it can be moved or deleted.

    A directory that is no subvolume is left as it is.
    """
    if is_subvolume(os.fstat(subvolume_fd)) and ioctls.is_read_only(subvolume_fd):
        ioctls.set_read_only(subvolume_fd, False)  # noqa: FBT003 - named by the function
