"""Files that get their name when they are whole, so that nobody ever reads a part of one."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from typing import BinaryIO, cast

__all__ = ["NewFile", "new_file", "new_file_at"]

_PREFIX = ".hostspec-new-"
_COPY_SIZE = 1 << 20


class NewFile:
    """A file that is being written and has only a temporary name."""

    def __init__(self, file: BufferedRandom, path: str) -> None:
        """Wrap an open file at its temporary name."""
        self.file = file
        """What is written to; seekable."""
        self._path = path

    def keep_as(self, path: str) -> None:
        """Give the file its name, in the directory where it is; a file of that name is replaced.

        The file is synced before, and its directory after.

        Args:
            path: The name.

        Raises:
            OSError: It has no name.
        """
        self.file.flush()
        os.fchmod(self.file.fileno(), 0o666 & ~_umask())
        os.fsync(self.file.fileno())
        os.rename(self._path, path)
        _sync_directory(os.path.dirname(path) or ".")


@contextmanager
def new_file(directory: str) -> Iterator[NewFile]:
    """Give a file in ``directory`` that is deleted unless it was kept."""
    fd, path = tempfile.mkstemp(prefix=_PREFIX, dir=directory)
    with open(fd, "w+b") as file:
        try:
            yield NewFile(file, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


@contextmanager
def new_file_at(path: str) -> Iterator[BinaryIO]:
    """Give a seekable file whose content is at ``path`` once the block has ended well.

    A file of that name is replaced in one step. What is not a file (a pipe, ``/dev/stdout``) gets the
    content in the end.
    """
    if _is_special(path):
        with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR", "/var/tmp")) as file:  # noqa: S108 - it is big
            yield cast(BinaryIO, file)
            file.seek(0)
            with open(path, "wb") as target:
                while piece := file.read(_COPY_SIZE):
                    target.write(piece)
        return
    real = os.path.realpath(path)
    with new_file(os.path.dirname(real)) as new:
        yield new.file
        new.keep_as(real)


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _umask() -> int:
    # Asking for the mask by setting it would change it for other threads meanwhile.
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
