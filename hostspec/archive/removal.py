"""Removing what a tar replaces or hides: one name, or a directory's content but for what the tar brought."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container

from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.resolve import open_in_root

__all__ = ["prune", "remove"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(directory_fd: int, name: bytes) -> int | None:
    """Remove ``name`` in a directory, with all that is in it.

    Returns:
        The file type bits of what was there (``stat.S_IFMT``), or ``None`` when nothing was.

    Raises:
        OSError: The operating system refused; a part may be gone.
    """
    try:
        kind = stat.S_IFMT(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None
    if kind != stat.S_IFDIR:
        os.unlink(name, dir_fd=directory_fd)
        return kind
    try:
        os.rmdir(name, dir_fd=directory_fd)
    except OSError:
        # The descriptor's own path leads to that very directory, and the last name is not followed.
        delete_tree(f"/proc/self/fd/{directory_fd}/{os.fsdecode(name)}")
    return kind


def prune(top: int, keep: Container[tuple[int, bytes]]) -> None:
    """Remove everything in a directory, at every depth, but what ``keep`` holds and the way to it.

    Args:
        top: The directory.
        keep: Has ``(inode number of a directory, name in it)`` for what must stay.

    Raises:
        OSError: The operating system refused; a part may be gone.
    """
    unwanted: list[bytes] = []
    ahead = [b""]
    while ahead:
        path = ahead.pop()
        here = open_in_root(top, os.fsdecode(path) or ".", _DIRECTORY)
        try:
            inode = os.fstat(here).st_ino
            for entry in _entries(here):
                name = os.fsencode(entry.name)
                wanted = (inode, name) in keep
                if entry.is_dir(follow_symlinks=False):
                    below = path + b"/" + name if path else name
                    ahead.append(below)
                    if not wanted:
                        unwanted.append(below)
                elif not wanted:
                    os.unlink(name, dir_fd=here)
        finally:
            os.close(here)
    # Those above come before those below them.
    for path in reversed(unwanted):
        _remove_if_empty(top, path)


def _remove_if_empty(top: int, path: bytes) -> None:
    above, _, name = path.rpartition(b"/")
    here = open_in_root(top, os.fsdecode(above) or ".", _DIRECTORY)
    try:
        os.rmdir(name, dir_fd=here)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        os.close(here)


def _entries(directory_fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory_fd) as entries:
        return list(entries)
