"""Times of directories, which can only be set when nothing is written into them any more."""

from __future__ import annotations

import errno
import os
from struct import Struct
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from hostspec.kernel.resolve import open_in_root

__all__ = ["DirectoryTimes"]

_RECORD = Struct("=qII")  # seconds since the epoch, nanoseconds, length of the path in bytes
_NS = 1_000_000_000
_IN_MEMORY = 1 << 22


class DirectoryTimes:
    """Remembers times of directories until the end, in bounded memory."""

    def __init__(self) -> None:
        """Start with none; what exceeds 4 MiB goes to a temporary file."""
        self._records = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._write = self._records.write

    def add(self, path: bytes, mtime_ns: int) -> None:
        """Remember the time of a directory, its path relative to the root; the last one counts."""
        self._write(_RECORD.pack(*divmod(mtime_ns, _NS), len(path)) + path)

    def apply(self, root_fd: int) -> None:
        """Set the times of those that are still directories.

        Raises:
            OSError: The operating system refused.
        """
        self._records.seek(0)
        while head := self._records.read(_RECORD.size):
            seconds, fraction, length = _RECORD.unpack(head)
            mtime_ns = seconds * _NS + fraction
            path = self._records.read(length)
            try:
                fd = open_in_root(
                    root_fd,
                    os.fsdecode(path) or ".",
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
                )
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed or replaced later in the tar
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                continue
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the memory or the temporary file."""
        self._records.close()
