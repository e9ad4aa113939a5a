"""A stream seen through views of fixed size, so that nothing is copied or kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

from hostspec.archive.headers import BLOCK
from hostspec.errors import InvalidArchive

__all__ = ["ByteSource", "Trace", "Viewed", "pieces_of"]

BUFFER_SIZE = 1 << 19
"""Bytes; large enough that calls don't count, small enough to stay in a processor's cache."""

_NextView = Callable[[], memoryview]


class Trace(Protocol):
    """Sees every byte of a tar in its order, each once, as framing or as content.

    That is what one needs to record how a tar was put together and to put it together again.
    The views are valid only during the call.
    """

    def framing(self, data: memoryview) -> None:
        """Take headers, padding, or what follows the last member."""

    def content(self, data: memoryview) -> None:
        """Take a piece of what is stored for the member whose headers came last."""


class Viewed(Protocol):
    """A stream that shows what it has read ahead, so that it need not be copied."""

    def next_view(self) -> memoryview:
        """Return what comes next, at least one byte but at the end; valid until the next call."""
        ...


class ByteSource:
    """Reads a stream in large pieces and hands out views of them."""

    def __init__(self, stream: BinaryIO, *, trace: Trace | None = None) -> None:
        """Read from ``stream``, which may return less than was asked for.

        Args:
            stream: Anything with ``next_view`` (:class:`Viewed`), ``readinto`` or ``read``.
            trace: Is shown everything that is handed out or skipped.
        """
        self._next_view = _views_of(stream)
        self._trace = trace
        self._view = memoryview(b"")
        self._start = 0
        self._end = 0
        self.consumed = 0
        """Bytes read from the stream so far."""

    def block(self) -> bytes | None:
        """Return the next 512 bytes, or ``None`` at the end of the stream.

        Raises:
            InvalidArchive: The stream ends within the block.
        """
        start = self._start
        stop = start + BLOCK
        if stop > self._end:
            return self._gathered_block()
        self._start = stop
        view = self._view[start:stop]
        if self._trace is not None:
            self._trace.framing(view)
        return bytes(view)

    def content(self, limit: int) -> memoryview:
        """Return up to ``limit`` bytes of content, at least one; valid until the next call.

        Raises:
            InvalidArchive: The stream has ended.
        """
        piece = self._piece(limit)
        if self._trace is not None:
            self._trace.content(piece)
        return piece

    def contents(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes of content, each piece valid until the next.

        Raises:
            InvalidArchive: The stream ends before that.
        """
        while size:
            piece = self.content(size)
            size -= len(piece)
            yield piece

    def skip_content(self, size: int) -> None:
        """Pass over ``size`` bytes of content.

        Raises:
            InvalidArchive: The stream ends before that.
        """
        for _ in self.contents(size):
            pass

    def skip_padding(self, size: int) -> None:
        """Pass over what fills the last block of ``size`` bytes of content.

        A stream may end right here, without it: some programs write their last member so, and the Go
        library reads on as if the archive had ended as it should.

        Raises:
            InvalidArchive: The stream ends in the middle of it.
        """
        padding = -size % BLOCK
        if self._start == self._end and not self._fill():
            return
        while padding:
            piece = self._piece(padding)
            padding -= len(piece)
            if self._trace is not None:
                self._trace.framing(piece)

    def drain(self) -> None:
        """Read the stream to its end."""
        while self._start < self._end or self._fill():
            piece = self._view[self._start : self._end]
            self._start = self._end
            if self._trace is not None:
                self._trace.framing(piece)

    def _piece(self, limit: int) -> memoryview:
        start = self._start
        if start == self._end:
            if not self._fill():
                raise InvalidArchive("unexpected EOF: the archive ends in the middle of it")
            start = 0
        self._start = stop = min(start + limit, self._end)
        return self._view[start:stop]

    def _fill(self) -> bool:
        """Replace the used-up view; tell whether there was anything."""
        self._view = self._next_view()
        self._start = 0
        self._end = len(self._view)
        self.consumed += self._end
        return self._end > 0

    def _gathered_block(self) -> bytes | None:
        """Return a block of which a part is still in the stream, or ``None`` at its end."""
        block = bytearray()
        while len(block) < BLOCK:
            if self._start == self._end and not self._fill():
                if block:
                    raise InvalidArchive("unexpected EOF: the archive ends in the middle of a block")
                return None
            block += self._piece(BLOCK - len(block))
        if self._trace is not None:
            self._trace.framing(memoryview(block))
        return bytes(block)


def pieces_of(stream: BinaryIO) -> Iterator[memoryview]:
    """Yield what is in a stream; each piece is valid until the next is asked for.

    All go through one buffer: where each read makes a new one, new memory can cost more than all else.
    """
    next_view = _views_of(stream)
    while piece := next_view():
        yield piece


def _views_of(stream: BinaryIO) -> _NextView:
    """Return ``next_view`` of the stream, or something that does it by ``readinto`` or ``read``."""
    views = getattr(stream, "next_view", None)
    if views is not None:
        return cast("_NextView", views)
    read_into = getattr(stream, "readinto", None)
    if read_into is None:
        return lambda: memoryview(stream.read(BUFFER_SIZE))
    buffer = memoryview(bytearray(BUFFER_SIZE))
    return lambda: buffer[: read_into(buffer) or 0]
