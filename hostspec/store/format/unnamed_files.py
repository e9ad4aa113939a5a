"""Files that have no name while they are written, and get one under a lock that is then held for a moment.

Nothing of one is left when its writer dies. Once written, it takes its name in one step, in the place of
whatever has it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self

from hostspec.store.format.atomic import discard_leftover, replace_file, temporary_path

__all__ = ["UnnamedFile", "copy_to", "link_as"]

_NOT_THERE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
_PIECE = 1 << 20


class UnnamedFile:
    """A file without a name yet; a context manager, and gone at its end unless it has got one.

    Attributes:
        file: To be written from its beginning.
    """

    def __init__(self, directory: str) -> None:
        """Make the file where its name will be, or elsewhere on that file system.

        Args:
            directory: Is made if missing.

        Raises:
            OSError: The operating system refused.
        """
        os.makedirs(directory, 0o700, exist_ok=True)
        self.file: BinaryIO = open(_open_unnamed(directory), "wb+")  # noqa: SIM115 - closed at the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # what it has not been able to write, and nobody has synced, goes with it
            self.file.close()

    def sync(self) -> None:
        """Make durable what has been written.

        Raises:
            OSError: It may not be.
        """
        self.file.flush()
        os.fsync(self.file.fileno())


def link_as(file: BinaryIO, path: str) -> None:
    """Give an open file this name as well, or where that is not possible, give it to a copy.

    The caller holds the lock under which files of that name are written, and syncs the directory.

    Raises:
        OSError: Whatever has the name still has it.
    """
    temporary = temporary_path(path)
    discard_leftover(path)
    try:
        # Only where a directory is given, which an absolute path does not need, does Python follow the link.
        os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError:  # it had a name once and lost it, or lies in another file system
        copy_to(file, path)
        return
    try:
        os.rename(temporary, path)
    finally:
        discard_leftover(path)  # if that failed, or did nothing since the file has the name already


def copy_to(file: BinaryIO, path: str) -> None:
    """Give this name to a durable copy of an open file; the rest is as with :func:`link_as`."""
    file.seek(0)
    replace_file(path, iter(lambda: file.read(_PIECE), b""))


def _open_unnamed(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
    path = os.path.join(directory, f".tmp-{os.urandom(8).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd
