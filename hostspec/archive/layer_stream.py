"""A layer tar that is made while it is read."""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from hostspec.archive.headers import BLOCK
from hostspec.errors import DriverFailed

__all__ = ["Content", "LayerStream", "Part", "Parts"]


class Content(NamedTuple):
    """A file whose content comes next in the tar."""

    fd: int
    """Its descriptor, which the stream closes."""
    size: int
    """Bytes that the tar's header promises."""
    path: str
    """Its path, for errors."""


Part = tuple[bytes, Content | None]
"""Bytes, and perhaps a file whose content, filled up to whole blocks, comes after them."""

Parts = Generator[Part]
"""What a tar is made of."""


class LayerStream(io.RawIOBase, BinaryIO):
    """A readable stream; its reads fill what they are given, except at the end."""

    def __init__(self, parts: Parts, held: ExitStack) -> None:
        """Read what ``parts`` yields, and close ``held`` in the end."""
        super().__init__()
        self._parts = parts
        self._held = held
        self._pending = b""
        self._content: Content | None = None
        self._left = 0

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``; less than that only at the end.

        Raises:
            HostspecError: As :func:`hostspec.archive.pack.pack` says.
        """
        if self.closed:
            raise ValueError("read of a closed layer")
        view = memoryview(buffer).cast("B")
        size = len(view)
        filled = 0
        while filled < size:
            if self._pending:
                piece = self._pending[: size - filled]
                self._pending = self._pending[len(piece) :]
                end = filled + len(piece)
                view[filled:end] = piece
                filled = end
            elif self._content is not None:
                filled += self._read_content(self._content, view[filled:])
            elif not self._advance():
                break
        return filled

    def close(self) -> None:
        """Close the tree; repeatable."""
        if not self.closed:
            self._drop_content()
            self._parts.close()
            self._held.close()
        super().close()

    def _advance(self) -> bool:
        """Get the next part; tell whether there was one."""
        part = next(self._parts, None)
        if part is None:
            return False
        self._pending, self._content = part
        if self._content is not None:
            self._left = self._content.size
        return True

    def _read_content(self, content: Content, view: memoryview) -> int:
        try:
            count = os.readv(content.fd, [view[: self._left]])
        except OSError as error:
            raise DriverFailed(f"read {content.path}", error) from error
        if not count:
            raise DriverFailed(f"read {content.path}", "it has become shorter while it was packed")
        self._left -= count
        if not self._left:
            self._pending = bytes(-content.size % BLOCK)
            self._drop_content()
        return count

    def _drop_content(self) -> None:
        if self._content is not None:
            os.close(self._content.fd)
            self._content = None
