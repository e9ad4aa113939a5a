"""A stream that is read ahead of its user, and followed while it is."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ReadAhead", "Source"]

_PIECES_AHEAD = 8
_SECONDS_TO_END = 1.0


class Source(Protocol):
    """A stream, as far as it matters here."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read into ``buffer``, at least one byte but at the end."""
        ...


class ReadAhead(io.RawIOBase):
    """A stream that a thread reads a few pieces ahead of whoever uses it, and follows meanwhile.

    Whoever has read it to its end knows that the follower has, too.
    """

    def __init__(self, source: Source, follow: Callable[[BinaryIO], None]) -> None:
        """Start to read.

        Args:
            source: What is read, in the thread.
            follow: Runs in the thread, and reads the stream that it is given to the end.
        """
        super().__init__()
        self._source = source
        self._follow = follow
        self._pieces: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(_PIECES_AHEAD)
        self._stop = False
        self._piece = memoryview(b"")
        self._ended: BaseException | bool = False
        self._thread = threading.Thread(target=self._run, name="layer stream", daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into ``buffer``, at least one byte but at the end.

        Raises:
            Exception: What the source or the follower raised.
        """
        if not self._piece:
            self._next_piece()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def close(self) -> None:
        """Stop reading; a source that keeps silent is not waited for."""
        self._stop = True
        self._room.release()
        self._thread.join(_SECONDS_TO_END)
        super().close()

    def pass_on(self, view: memoryview) -> int:
        """Read a piece in the thread, for the follower as well as the user."""
        self._room.acquire()
        if self._stop:
            raise _StoppedError
        try:
            count = self._source.readinto(view)
        except BaseException as error:
            raise _SourceFailedError from error
        if count:
            self._pieces.put(bytes(view[:count]))
        return count

    def _next_piece(self) -> None:
        if self._ended is False:
            came = self._pieces.get()
            self._room.release()
            if isinstance(came, BaseException):
                self._ended = came
            elif came:
                self._piece = memoryview(came)
            else:
                self._ended = True
        if isinstance(self._ended, BaseException):
            raise self._ended

    def _run(self) -> None:
        end: bytes | BaseException = b""
        try:
            self._follow(cast(BinaryIO, _Followed(self)))
        except _StoppedError:
            return
        except _SourceFailedError as error:
            end = error.__cause__ or error
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            end = error
        self._pieces.put(end)


class _Followed(io.RawIOBase):
    """The stream as the follower sees it."""

    def __init__(self, ahead: ReadAhead) -> None:
        super().__init__()
        self._ahead = ahead

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._ahead.pass_on(memoryview(buffer).cast("B"))


class _StoppedError(Exception):
    """Nobody wants the rest."""


class _SourceFailedError(Exception):
    """The source cannot be read; the cause says why."""
