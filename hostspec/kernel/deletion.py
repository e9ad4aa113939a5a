"""Delete trees of files that come from images: of any depth, with any names, modes and links."""

from __future__ import annotations

import os
import stat

from hostspec.kernel.modes import change_mode

__all__ = ["delete_tree"]

_MAX_DEPTH = 32
"""Directories held open at once; what lies deeper is first moved up."""

_BLOCK_BYTES = 512
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete_tree(path: str) -> int:
    """Delete a file, or a directory with everything in it; links are not followed.

    Uses a bounded number of descriptors and short paths, however deep the tree is. What is missing,
    or deleted by somebody else meanwhile, is no error. Stops at the first error: a part is left then.

    Args:
        path: The file or directory. Nothing must be mounted below it.

    Returns:
        Bytes of the blocks that were freed; blocks shared by reflink count too,
        other links of a file keep its blocks.

    Raises:
        OSError: Something cannot be deleted (EBUSY for a mount point, EPERM for an immutable file).
    """
    parent, name = os.path.split(path.rstrip("/") or "/")
    try:
        parent_fd = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return _Deletion(path).delete(parent_fd, name, 0)
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = path if error.filename == name else f"{path}/…/{error.filename}"
        raise
    finally:
        os.close(parent_fd)


class _Deletion:
    """One deletion: its top directory, into which directories from too far below are moved."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._top_fd = -1
        self._moved = 0

    def delete(self, parent_fd: int, name: str, depth: int) -> int:
        """Delete one name of a directory, and return the bytes freed."""
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                return self._delete_directory(parent_fd, name, depth, found)
            os.unlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            return 0
        return found.st_blocks * _BLOCK_BYTES if found.st_nlink == 1 else 0

    def _delete_directory(self, parent_fd: int, name: str, depth: int, found: os.stat_result) -> int:
        if depth > _MAX_DEPTH:
            self._move_up(parent_fd, name)
            return 0
        freed = found.st_blocks * _BLOCK_BYTES
        directory_fd = _open_directory(parent_fd, name)
        try:
            if os.geteuid() != 0 and not found.st_mode & stat.S_IWUSR:
                os.fchmod(directory_fd, 0o700)
            if depth == 0:
                self._top_fd = directory_fd
            # What was moved up meanwhile is found by listing the top again.
            while names := os.listdir(directory_fd):
                for each in names:
                    freed += self.delete(directory_fd, each, depth + 1)
                if depth > 0:
                    break
        finally:
            os.close(directory_fd)
        os.rmdir(name, dir_fd=parent_fd)
        return freed

    def _move_up(self, parent_fd: int, name: str) -> None:
        self._moved += 1
        unique = f"moved-up-{self._moved}-{os.urandom(8).hex()}"
        os.rename(name, unique, src_dir_fd=parent_fd, dst_dir_fd=self._top_fd)


def _open_directory(parent_fd: int, name: str) -> int:
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
    except PermissionError:
        # An ordinary user's own directory without permissions for anybody (overlay's "work/work").
        change_mode(name, 0o700, dir_fd=parent_fd)
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
