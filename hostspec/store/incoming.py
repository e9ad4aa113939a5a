"""A layer's tar stream on its way in: decompressed, measured and digested while somebody unpacks it.

Reading, decompressing and digesting release the interpreter's lock, so a thread does them ahead of
the unpacking, a few pieces at most.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from hashlib import new as new_digest
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from hostspec.archive.compression import Compression, decompressed
from hostspec.errors import DigestMismatch, InvalidRequest
from hostspec.store.owners import OwnersSeen
from hostspec.store.records import Layer
from hostspec.values import Progress, ProgressCallback

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["IncomingLayer"]

_ALGORITHMS = ("sha256", "sha384", "sha512")
_PIECE = 1 << 20
_PIECES_AHEAD = 4
_SECONDS_TO_END = 1.0


class IncomingLayer:
    """One tar stream, in any compression; a context manager."""

    def __init__(
        self,
        source: BinaryIO,
        *,
        expected_digest: str | None = None,
        expected_diff_id: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Start to read.

        Args:
            source: The stream as it comes.
            expected_digest: Its promised digest.
            expected_diff_id: The promised digest of the uncompressed stream.
            progress: Told how many bytes of ``source`` have been read.

        Raises:
            InvalidRequest: A promised digest is no digest.
            InvalidArchive: The compression is damaged at its very beginning.
        """
        self._expected = (expected_digest, expected_diff_id)
        self._owners = OwnersSeen()
        self._came = _Measured(source, _algorithm(expected_digest), _told(source, progress))
        unpacked = decompressed(cast(BinaryIO, self._came))
        self._compression = unpacked.compression
        algorithm: str | None = _algorithm(expected_diff_id)
        if self._compression is Compression.NONE and algorithm == _algorithm(expected_digest):
            algorithm = None  # what comes is what is unpacked; it need not be digested twice
        self._unpacked = _Measured(cast(BinaryIO, unpacked), algorithm, self._owners.feed)
        self._ahead = _ReadAhead(cast(BinaryIO, self._unpacked))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ahead.close()

    @property
    def stream(self) -> BinaryIO:
        """The uncompressed tar."""
        return cast(BinaryIO, self._ahead)

    def finish(self, layer: Layer) -> Layer:
        """Read what is left, verify the promises, and note in a layer's record what came.

        Raises:
            DigestMismatch: Something else came than was promised.
        """
        while self._ahead.read(_PIECE):
            pass
        self._came.drain()  # what follows the end of the compressed data is part of the blob
        digest = self._came.digest or ""
        diff_digest = self._unpacked.digest or digest
        for expected, actual in zip(self._expected, (digest, diff_digest), strict=True):
            if expected is not None and expected != actual:
                raise DigestMismatch(expected, actual)
        return layer._replace(
            compressed_digest=digest,
            compressed_size=self._came.size,
            diff_digest=diff_digest,
            diff_size=self._unpacked.size,
            compression=int(self._compression),
            uids=self._owners.uids,
            gids=self._owners.gids,
        )


class _Measured(io.RawIOBase):
    """A stream that is measured and digested while it is read."""

    def __init__(
        self, source: BinaryIO, algorithm: str | None, tell: Callable[[memoryview], None] | None
    ) -> None:
        super().__init__()
        self._source = source
        self._algorithm = algorithm
        self._digest = new_digest(algorithm, usedforsecurity=False) if algorithm else None
        self._tell = tell
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        count = len(data)
        view[:count] = data
        if count:
            self.size += count
            if self._digest is not None:
                self._digest.update(data)
            if self._tell is not None:
                self._tell(view[:count])
        return count

    def drain(self) -> None:
        """Read to the end."""
        while self.read(_PIECE):
            pass

    @property
    def digest(self) -> str | None:
        """The digest of what has been read, where it is digested."""
        return f"{self._algorithm}:{self._digest.hexdigest()}" if self._digest is not None else None


class _ReadAhead(io.RawIOBase):
    """A stream that a thread reads a few pieces ahead of whoever uses it."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._pieces: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(_PIECES_AHEAD)
        self._stop = False
        self._piece = memoryview(b"")
        self._ended: BaseException | bool = False
        self._thread = threading.Thread(target=self._run, name="layer stream", daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
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
        piece: bytes | BaseException = b"-"
        while piece and not isinstance(piece, BaseException):
            self._room.acquire()
            if self._stop:
                return
            try:
                piece = self._source.read(_PIECE)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
                piece = error
            self._pieces.put(piece)


def _algorithm(expected: str | None) -> str:
    """Return the algorithm of a promised digest, or the usual one."""
    name = (expected or "sha256:").partition(":")[0]
    if name not in _ALGORITHMS:
        raise InvalidRequest(
            f"digest {expected!r}", f"must be ALGORITHM:HEX, with {' or '.join(_ALGORITHMS)}"
        )
    return name


def _told(source: BinaryIO, progress: ProgressCallback | None) -> Callable[[memoryview], None] | None:
    if progress is None:
        return None
    total = _length(source)
    done = 0

    def tell(view: memoryview) -> None:
        nonlocal done
        done += len(view)
        progress(Progress(done, total, "bytes"))

    return tell


def _length(source: BinaryIO) -> int | None:
    """Return how many bytes a stream has, where it is a file that is read from its beginning."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except (OSError, AttributeError, ValueError):
        return None
