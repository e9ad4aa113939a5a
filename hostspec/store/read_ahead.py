"""A stream that one thread reads ahead of its user, and others follow meanwhile.

Reading, decompressing and digesting release the interpreter's lock, so each goes on beside the unpacking.
What is read goes round in a few buffers; a buffer is filled again when everybody has read it. So the
memory is the same whatever the stream's length, and the slowest reader sets the pace.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Protocol

from hostspec.errors import DriverFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BUFFERED_BYTES", "Follow", "Place", "ReadAhead", "Source"]

# Small files take long to make, and large ones to decompress: what is read ahead bridges that.
_BUFFERS = 16
_BUFFER_SIZE = 1 << 19
_SECONDS_TO_END = 1.0

BUFFERED_BYTES = _BUFFERS * _BUFFER_SIZE
"""Most that is read ahead of the slowest reader, and the memory that it takes."""


class Source(Protocol):
    """A stream, as far as it matters here."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read into ``buffer``, at least one byte but at the end."""
        ...


class ReadAhead(io.RawIOBase):
    """A stream that a thread reads a few pieces ahead of whoever uses it, and others follow.

    Whoever has read it to its end knows that all followers have, too.
    """

    def __init__(self, source: Source, followers: Sequence[Follow]) -> None:
        """Start to read.

        Args:
            source: What is read, in a thread.
            followers: Each runs in a thread of its own, and reads the same stream to its end.

        Raises:
            DriverFailed: There may be no more threads.
        """
        super().__init__()
        self._source = source
        self._buffers = _Buffers(readers=len(followers) + 1)
        self._place = Place(self._buffers)
        self._followed = [Place(self._buffers) for _ in followers]
        self._threads = [
            Thread(target=self._run, args=pair, name="layer follower", daemon=True)
            for pair in zip(followers, self._followed, strict=True)
        ]
        self._reader = Thread(target=self._read, name="layer stream", daemon=True)
        try:
            for thread in (*self._threads, self._reader):
                thread.start()
        except RuntimeError as error:
            self.close()
            raise DriverFailed("start a thread", OSError(errno.EAGAIN, str(error))) from error

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into ``buffer``, at least one byte but at the end.

        Raises:
            Exception: What the source or a follower raised.
        """
        return self._place.readinto(buffer)

    def next_view(self) -> memoryview:
        """Return what comes next without copying it, see :class:`hostspec.archive.byte_source.Viewed`.

        Raises:
            Exception: What the source or a follower raised.
        """
        return self._place.next_view()

    def close(self) -> None:
        """Stop reading; a source that keeps silent is not waited for."""
        if not self.closed:
            self._buffers.stop()
            for place in self._followed:
                place.end(_StoppedError())
            for thread in (self._reader, *self._threads):
                if thread.ident is not None:
                    thread.join(_SECONDS_TO_END)
        super().close()

    def _read(self) -> None:
        """Fill buffers and hand them round, until the source ends or nobody wants the rest."""
        end: BaseException | None = None
        try:
            while (buffer := self._buffers.take()) is not None:
                buffer.size = self._source.readinto(buffer.view)
                if not buffer.size:
                    break
                for place in (self._place, *self._followed):
                    place.add(buffer)
            else:
                return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            end = error
        for place in self._followed:
            place.end(None if end is None else _SourceFailedError())
        for thread in self._threads:
            thread.join()
        self._place.end(end)

    def _run(self, follow: Follow, place: Place) -> None:
        try:
            follow(place)
            for _ in place.views():
                pass  # or its buffers would be missing
        except (_StoppedError, _SourceFailedError):
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            self._place.end(error)


class Place(io.RawIOBase):
    """How far one reader has come."""

    def __init__(self, buffers: _Buffers) -> None:
        """Begin at the beginning."""
        super().__init__()
        self._buffers = buffers
        self._coming: SimpleQueue[_Buffer | BaseException | None] = SimpleQueue()
        self._buffer: _Buffer | None = None
        self._rest = memoryview(b"")
        self._ended = False
        self._error: BaseException | None = None

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into ``buffer``, at least one byte but at the end."""
        if not self._rest and not self._advance():
            return 0
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        if not self._rest:
            self._give_back()
        return count

    def next_view(self) -> memoryview:
        """Return what comes next without copying it, at least one byte but at the end.

        The view is valid until more is read.
        """
        if not self._rest:
            self._advance()
        view, self._rest = self._rest, memoryview(b"")
        return view

    def views(self) -> Iterator[memoryview]:
        """Yield the rest of the stream without copying it; each view is valid until the next."""
        while view := self.next_view():
            yield view

    def add(self, buffer: _Buffer) -> None:
        """Let the reader come to this, in the end."""
        self._coming.put(buffer)

    def end(self, error: BaseException | None) -> None:
        """Let the reader come to the end, or to an error."""
        self._coming.put(error)

    def _advance(self) -> bool:
        """Wait for the next buffer; tell whether there is one."""
        self._give_back()
        if self._buffers.stopped:
            raise _StoppedError
        if not self._ended:
            came = self._coming.get()
            if isinstance(came, _Buffer):
                self._buffer = came
                self._rest = came.view[: came.size]
                return True
            self._ended = True
            self._error = came
        if self._error is not None:
            raise self._error
        return False

    def _give_back(self) -> None:
        if self._buffer is not None:
            self._buffers.give_back(self._buffer)
            self._buffer = None


Follow = Callable[[Place], None]
"""Reads a stream to its end."""


class _Buffer:
    """A piece of the stream."""

    __slots__ = ("readers_left", "size", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_BUFFER_SIZE))
        self.size = 0
        self.readers_left = 0


class _Buffers:
    """All the memory that there is for the stream."""

    def __init__(self, readers: int) -> None:
        self.stopped = False
        self._readers = readers
        self._made = 0
        self._free: SimpleQueue[_Buffer | None] = SimpleQueue()
        self._lock = Lock()

    def take(self) -> _Buffer | None:
        """Wait for a buffer that everybody has read; ``None`` when nobody wants the rest."""
        if self._made < _BUFFERS and self._free.empty():
            self._made += 1
            buffer: _Buffer | None = _Buffer()
        else:
            buffer = self._free.get()
        if buffer is None or self.stopped:
            return None
        buffer.readers_left = self._readers
        return buffer

    def give_back(self, buffer: _Buffer) -> None:
        """Say that one reader has read a buffer."""
        with self._lock:
            buffer.readers_left -= 1
            is_free = not buffer.readers_left
        if is_free:
            self._free.put(buffer)

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self.stopped = True
        self._free.put(None)


class _StoppedError(Exception):
    """Nobody wants the rest."""


class _SourceFailedError(Exception):
    """The source cannot be read; who uses the stream hears why."""
