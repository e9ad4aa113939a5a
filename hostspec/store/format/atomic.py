"""Files that are replaced whole, and survive what comes right after.

A reader sees the old content or the new, never a part; and once a function here has returned, the
new content survives the death of the process and, where it synced, a power loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["TEMPORARY_PREFIX", "discard_leftover", "replace_file", "sync_directory", "temporary_path"]

TEMPORARY_PREFIX = ".tmp-"
"""Begins the names that files have until they take the place of others."""


def replace_file(path: str, content: bytes | Iterable[bytes], *, durable: bool = True) -> None:
    """Replace the content of a file, or make it, in one step; its mode becomes 0600.

    The caller holds the lock under which the file is written: the temporary file beside it has a
    fixed name, so that one left by a killed process is overwritten and never piles up.

    Args:
        path: The file.
        content: What it will hold, at once or in pieces.
        durable: Sync the file before, and its directory after it gets its name.

    Raises:
        OSError: The old content is still there; or, where only the directory could not be synced, the new
            content is, and may not survive a power loss.
    """
    directory = os.path.dirname(path)
    temporary = temporary_path(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        for piece in (content,) if isinstance(content, bytes) else content:
            _write(fd, piece)
        if durable:
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    if durable:
        sync_directory(directory)


def discard_leftover(path: str) -> None:
    """Delete what a process left beside a file that was killed while it replaced it.

    The caller holds the lock under which the file is written, so nobody is writing it now.
    """
    try:
        os.unlink(temporary_path(path))
    except FileNotFoundError:
        return


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss.

    Raises:
        OSError: They may not.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_path(path: str) -> str:
    """Return the name that a file has until it replaces the one at ``path``."""
    directory, name = os.path.split(path)
    return os.path.join(directory, TEMPORARY_PREFIX + name)


def _write(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
