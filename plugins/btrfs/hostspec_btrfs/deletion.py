"""Delete trees that hold subvolumes, whatever a container has made of them.

Two ways. Whole subvolumes are dropped by the kernel in one call each; that needs privilege.
Where it fails, everything is deleted entry by entry, and ``rmdir`` deletes an empty subvolume
for anyone who may write there (Linux 4.18). The second way goes to any depth and breadth: it holds
two descriptors at a time, and no path is longer than one name.
"""

from __future__ import annotations

import os
import stat

from hostspec.kernel.modes import change_mode
from hostspec_btrfs import ioctls
from hostspec_btrfs.subvolumes import is_subvolume, make_writable, nested_paths, opened

__all__ = ["delete_tree"]


def delete_tree(path: str) -> None:
    """Delete a directory or subvolume with everything in it; to delete nothing is no error.

    Args:
        path: Absolute path on btrfs. Nothing may be mounted below it.

    Raises:
        OSError: Something cannot be deleted; other things in it may be gone.
    """
    parent, name = os.path.split(path)
    try:
        parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if name in os.listdir(parent_fd):
            _delete_entry(parent_fd, name)
    finally:
        os.close(parent_fd)


def _delete_entry(parent_fd: int, name: str) -> None:
    if _is_directory_left(parent_fd, name):
        _empty(_moved(os.dup(parent_fd), name))
        os.rmdir(name, dir_fd=parent_fd)


def _is_directory_left(parent_fd: int, name: str) -> bool:
    """Delete a file, or a whole subvolume at once; tell whether a directory is left to be emptied."""
    status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent_fd)
        return False
    return not (is_subvolume(status) and _dropped(parent_fd, name))


def _dropped(parent_fd: int, name: str) -> bool:
    """Have the kernel drop a subvolume and what is nested in it; tell whether it did."""
    try:
        with opened(parent_fd, name) as root_fd:
            make_writable(root_fd)
            paths = nested_paths(root_fd)
            for path in paths:
                with opened(root_fd, path) as nested_fd:
                    make_writable(nested_fd)
            for path in reversed(paths):
                place, nested_name = os.path.split(path)
                with opened(root_fd, place) as place_fd:
                    ioctls.destroy_subvolume(place_fd, nested_name)
        ioctls.destroy_subvolume(parent_fd, name)
    except OSError:
        # Why does not matter: the other way either works or says what stands in its way. What it
        # goes down into is at least writable now.
        return False
    return True


def _empty(directory_fd: int) -> None:
    """Delete what a directory holds, deepest first; its descriptor is closed."""
    here = directory_fd
    try:
        left = [_directories_left(here)]
        names: list[str] = []
        while True:
            if left[-1]:
                names.append(left[-1].pop())
                here = _moved(here, names[-1])
                left.append(_directories_left(here))
            elif names:
                here = _moved(here, "..")
                os.rmdir(names.pop(), dir_fd=here)
                left.pop()
            else:
                return
    finally:
        os.close(here)


def _directories_left(directory_fd: int) -> list[str]:
    """Delete what a directory holds, except for the directories; return their names."""
    if os.geteuid() != 0:
        os.fchmod(directory_fd, 0o700)
    return [name for name in os.listdir(directory_fd) if _is_directory_left(directory_fd, name)]


def _moved(directory_fd: int, name: str) -> int:
    """Close a directory's descriptor and return one of a neighbouring directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        moved = os.open(name, flags, dir_fd=directory_fd)
    except PermissionError:
        # An ordinary user's own directory, in which that user may do nothing.
        change_mode(name, 0o700, dir_fd=directory_fd)
        moved = os.open(name, flags, dir_fd=directory_fd)
    os.close(directory_fd)
    return moved
