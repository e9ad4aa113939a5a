"""The files in a tar, by name and in any order, without unpacking it.

A plain tar is read where it lies. One that is compressed, or comes through a pipe, is first written
to an unnamed temporary file, because there is no other way to read its parts out of order.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile
import tempfile
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from hostspec.archive.compression import Compression, decompressed
from hostspec.errors import InvalidArchive, InvalidRequest
from hostspec.images.documents import LONGEST_DOCUMENT

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ArchiveMembers", "first_name"]

_COPY_SIZE = 1 << 20
_LINKS = 8
_LONGEST_HEADER = 1 << 20


class ArchiveMembers:
    """A tar, open for reading; a context manager."""

    def __init__(self, path: str) -> None:
        """Open a tar and read what is in it.

        Raises:
            InvalidRequest: It cannot be opened.
            InvalidArchive: It is no tar, or broken.
        """
        self.path = path
        self._file = _random_access(path)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Headers(self._file)), mode="r:") as tar:
                self._members = {_plain(member.name): member for member in tar}
        except (tarfile.TarError, InvalidArchive, EOFError, ValueError) as error:
            self._file.close()
            raise InvalidArchive(f"is no tar, or broken: {error}", path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Return the names of everything in it."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return the length of a file in bytes.

        Raises:
            InvalidArchive: There is no such file.
        """
        return self._file_member(name).size

    def open(self, name: str) -> BinaryIO:
        """Open a file, or what a link of that name leads to.

        Raises:
            InvalidArchive: There is no such file.
        """
        member = self._file_member(name)
        return cast(BinaryIO, _Section(self._file.fileno(), member.offset_data, member.size, name))

    def document(self, name: str) -> bytes:
        """Return a small file whole.

        Raises:
            InvalidArchive: There is no such file, or it is too long for a document (32 MiB).
        """
        if self.size(name) > LONGEST_DOCUMENT:
            raise InvalidArchive(f"is longer than {LONGEST_DOCUMENT} bytes", name)
        with self.open(name) as file:
            return file.read()

    def _file_member(self, name: str) -> tarfile.TarInfo:
        where = _plain(name)
        for _ in range(_LINKS):
            member = self._members.get(where)
            if member is None:
                break
            if member.isreg() and not member.issparse():
                return member
            if member.issym():
                where = _plain(posixpath.join(posixpath.dirname(where), member.linkname))
            elif member.islnk():
                where = _plain(member.linkname)
            else:
                break
        raise InvalidArchive("is not a file in the archive", name)


class _Headers:
    """A tar, for one who reads headers alone; none that is too long gets into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise InvalidArchive(f"has an extended header of {size} bytes")
        return self._file.read(size)


class _Section(io.RawIOBase):
    """A part of a file, with a position of its own, so that several can be read at once."""

    def __init__(self, fd: int, start: int, size: int, name: str) -> None:
        super().__init__()
        self._fd = fd
        self._start = self._position = start
        self._end = start + size
        self._name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: self._start, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = max(self._start, origin + offset)
        return self._position - self._start

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._end - self._position)]
        if not view:
            return 0
        count = os.preadv(self._fd, [view], self._position)
        if not count:
            raise InvalidArchive("ends too early", self._name)
        self._position += count
        return count


def first_name(path: str) -> str | None:
    """Return the name of the first thing in a tar, in any compression, or ``None`` where it is no tar.

    Raises:
        InvalidRequest: It cannot be opened.
    """
    with _opened(path) as file:
        try:
            head = io.BufferedReader(decompressed(file)).read(tarfile.BLOCKSIZE)
            return _plain(tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").name)
        except (tarfile.TarError, InvalidArchive):
            return None


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidRequest(path, f"cannot be read: {error.strerror}") from error


def _random_access(path: str) -> BinaryIO:
    with ExitStack() as stack:
        file = stack.enter_context(_opened(path))
        content = decompressed(file)
        if content.compression is Compression.NONE and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            stack.pop_all()
            file.seek(0)
            return file
        # Not below /tmp, which may be in memory: layers are big.
        directory = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108
        with ExitStack() as new:
            copy = cast(BinaryIO, new.enter_context(tempfile.TemporaryFile(dir=directory)))
            while piece := content.read(_COPY_SIZE):
                copy.write(piece)
            copy.seek(0)
            new.pop_all()
        return copy


def _plain(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")
