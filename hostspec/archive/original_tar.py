"""The tar that a layer was unpacked from, put together again from its tar-split file and its files."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from hostspec.archive.content_places import place_in_tree
from hostspec.archive.tar_split import CRC_SIZE, File, Segment, checksum, read_tar_split
from hostspec.errors import DriverFailed, InvalidArchive
from hostspec.kernel.resolve import open_in_root

__all__ = ["OriginalTar", "original_tar"]

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_MOST_KEPT = 16 << 20
"""Bytes of memory that the entries of a tar-split file may take."""
_OVERHEAD = 200
"""What one takes of them beside what it holds literally."""


def original_tar(tar_split: BinaryIO, root: str, *, size: int | None = None) -> OriginalTar:
    """Return the tar that was unpacked into a directory, exactly as it was.

    Before there is anything to read, it is made sure that the tar-split file is whole, and that each
    file is there and has its size. So whoever gets an error here can still pack the directory anew.
    Contents are verified only while they are read, because that takes reading them all: what changed
    in place, size kept, shows when part of the tar has been handed out.
    (The Go library looks at nothing before.)

    Args:
        tar_split: The tar-split file, at its beginning; seekable. It is not closed.
        root: The directory, which is never left, whatever names and links say.
        size: Bytes of the tar where that is known; a tar-split file that gives another tar is no use.

    Returns:
        A readable binary stream. Its reads raise InvalidArchive, with the name, where a file is not
        what it was.

    Raises:
        InvalidArchive: The tar cannot be had; names the file where it is one that was changed.
        DriverFailed: The operating system refused.
    """
    tree = _Tree(root)
    try:
        entries = _checked(read_tar_split(tar_split), tree, size)
        if entries is None:
            tar_split.seek(0)
            return OriginalTar(read_tar_split(tar_split), tree)
    except BaseException:
        tree.close()
        raise
    return OriginalTar(iter(entries), tree)


class OriginalTar(io.RawIOBase, BinaryIO):
    """A readable stream; its reads fill what they are given, except at the end."""

    def __init__(self, entries: Iterator[Segment | File], tree: _Tree) -> None:
        """Read what ``entries`` say, with files of ``tree``, which is closed in the end."""
        super().__init__()
        self._entries = entries
        self._tree = tree
        self._pending = memoryview(b"")
        self._content: _Content | None = None

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``; less than that only at the end.

        Raises:
            InvalidArchive: A file is not what it was; none of its last bytes has been handed out.
            DriverFailed: The operating system refused.
        """
        if self.closed:
            raise ValueError("read of a closed layer")
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view):
            if self._pending:
                count = min(len(self._pending), len(view) - filled)
                view[filled : filled + count] = self._pending[:count]
                self._pending = self._pending[count:]
                filled += count
            elif self._content is not None:
                filled += self._content.read(view[filled:])
                if not self._content.left:
                    self._drop_content()
            elif not self._advance():
                break
        return filled

    def close(self) -> None:
        """Close the tree; repeatable."""
        if not self.closed:
            self._drop_content()
            self._tree.close()
        super().close()

    def _advance(self) -> bool:
        """Get the next part; tell whether there was one."""
        entry = next(self._entries, None)
        if isinstance(entry, Segment):
            self._pending = memoryview(entry.data)
        elif entry is not None:
            self._content = _Content(self._tree.open(entry), entry)
        return entry is not None

    def _drop_content(self) -> None:
        if self._content is not None:
            os.close(self._content.fd)
            self._content = None


class _Content:
    """A file that is being read."""

    def __init__(self, fd: int, file: File) -> None:
        self.fd = fd
        self.left = file.size
        self._file = file
        self._crc = 0

    def read(self, view: memoryview) -> int:
        """Read some bytes, and verify all of them with the last."""
        piece = view[: self.left]
        try:
            count = os.readv(self.fd, [piece])
        except OSError as error:
            raise DriverFailed(f"read {_text(self._file)}", error) from error
        if not count:
            raise _changed(self._file)
        self._crc = checksum(piece[:count], self._crc)
        self.left -= count
        if not self.left and self._crc.to_bytes(CRC_SIZE, "big") != self._file.crc:
            raise _changed(self._file)
        return count


class _Tree:
    """The directory with the files; the one that the last file was in is kept open."""

    def __init__(self, root: str) -> None:
        try:
            self._root = os.open(root, _DIRECTORY)
        except OSError as error:
            raise DriverFailed(f"open {root}", error) from error
        self._path = b""
        self._directory = -1

    def close(self) -> None:
        self._leave()
        os.close(self._root)

    def open(self, file: File) -> int:
        """Open a file that has been checked; what it is now, its content says.

        Raises:
            InvalidArchive: It cannot be opened any more.
        """
        try:
            return os.open(self._find(file), _OPEN, dir_fd=self._directory)
        except OSError as error:
            raise _changed(file) from error

    def check(self, file: File) -> None:
        """Raise InvalidArchive unless there is a file of that size."""
        try:
            status = os.stat(self._find(file), dir_fd=self._directory, follow_symlinks=False)
        except OSError as error:
            raise _changed(file) from error
        if not (stat.S_ISREG(status.st_mode) and status.st_size == file.size):
            raise _changed(file)

    def _find(self, file: File) -> bytes:
        """Open the directory that a file is in; return its name there."""
        path, _, name = place_in_tree(file.name).rpartition(b"/")
        if self._directory < 0 or path != self._path:
            self._leave()
            self._directory = open_in_root(self._root, os.fsdecode(path) or ".", _DIRECTORY)
            self._path = path
        return name

    def _leave(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def _checked(entries: Iterator[Segment | File], tree: _Tree, size: int | None) -> list[Segment | File] | None:
    """Look whether all files are there and make a tar of this size.

    Returns:
        The entries, so that they need not be read again, or ``None`` if they would take too much memory.
    """
    kept: list[Segment | File] | None = []
    literal = contents = 0
    for entry in entries:
        if isinstance(entry, Segment):
            literal += len(entry.data)
        else:
            tree.check(entry)
            contents += entry.size
        if kept is not None:
            kept.append(entry)
            if len(kept) * _OVERHEAD + literal > _MOST_KEPT:
                kept = None
    total = literal + contents
    if size is not None and total != size:
        raise InvalidArchive(f"the tar-split file gives a tar of {total} bytes, not of {size}")
    return kept


def _changed(file: File) -> InvalidArchive:
    return InvalidArchive(
        "it is not as the layer brought it: changed, replaced or removed since", _text(file)
    )


def _text(file: File) -> str:
    return file.name.decode("utf-8", "surrogateescape")
