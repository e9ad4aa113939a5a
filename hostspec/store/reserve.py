"""Room that is kept free for removals, so that a store on a full file system can be emptied.

What removes something has to write first: notes, tables without the object, a place aside for its files. A
file of that size lies in the store, and gives its blocks away when there are no others.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

__all__ = ["Reserve"]

_NOTES_AND_DIRECTORIES = 1 << 20
_LONGEST_EMPTY_TABLE = len("null\n")


class Reserve:
    """The files of one store that hold room, one for each file system on which it may write."""

    def __init__(self, directories: Iterable[str]) -> None:
        """Name the directories of the tables of layers; nothing is read or made yet."""
        self._directories = tuple(directories)

    def fill(self) -> None:
        """Keep room, if there is plenty, for a store that has something that might be removed."""
        for directory in self._directories:
            try:
                _fill(directory)
            except OSError:
                continue  # there is none to keep, or the file system cannot

    def release(self) -> None:
        """Give the room away if there is hardly any other; call it before something is removed."""
        for directory in self._directories:
            try:
                _release(directory)
            except OSError:
                continue  # nothing was kept


def _fill(directory: str) -> None:
    path = _path(directory)
    table = _largest_table(directory)
    kept = _size(path)
    if table <= _LONGEST_EMPTY_TABLE:
        if kept is not None:
            os.unlink(path)
        return
    wanted = _wanted(table)
    if kept is not None and kept >= wanted // 2:
        return
    free = _free(directory)
    if kept is None and free < 4 * wanted:
        return
    # What was given away is taken back before anybody else takes it, or as much of it as is left.
    wanted = min(wanted, free)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _allocate(fd, wanted)
    finally:
        os.close(fd)


def _allocate(fd: int, size: int) -> None:
    """Give a file so many blocks, or as many as there are: what counts as free may be held back (xfs)."""
    while size:
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size = size * 7 // 8
        else:
            return


def _release(directory: str) -> None:
    path = _path(directory)
    kept = os.stat(path).st_size
    if kept == 0 or _free(directory) >= kept:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(fd, 0)
        os.fsync(fd)  # a journal gives blocks to others only when it has written that they are free
    finally:
        os.close(fd)


def _wanted(table: int) -> int:
    """Return how many bytes a removal may write, where the largest table has so many."""
    return _NOTES_AND_DIRECTORIES + 2 * table


def _largest_table(directory: str) -> int:
    stem = directory.removesuffix("layers")
    return max(_size(f"{stem}{kind}/{kind}.json") or 0 for kind in ("layers", "images", "containers"))


def _free(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _path(directory: str) -> str:
    return os.path.join(directory, "hostspec", "reserve")
