"""A layer's tar stream on its way in: decompressed, measured and digested while somebody unpacks it.

One thread reads, digests what comes, and decompresses it, ahead of the unpacking
(:mod:`hostspec.store.read_ahead`); another digests the tar and follows it, for what the layer's record
needs of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from hashlib import new as new_digest
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from hostspec.archive.compression import Compression, decompressed
from hostspec.errors import DigestMismatch, InvalidRequest
from hostspec.store.following import Follower
from hostspec.store.format.records import Layer
from hostspec.store.read_ahead import Place, ReadAhead
from hostspec.values import Progress, ProgressCallback

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["IncomingLayer"]

_ALGORITHMS = ("sha256", "sha384", "sha512")
_PIECE = 1 << 20

_ReadInto = Callable[[memoryview], int]


class IncomingLayer:
    """One tar stream, in any compression; a context manager."""

    def __init__(
        self,
        source: BinaryIO,
        tar_split: BinaryIO,
        *,
        tree_is_empty: bool,
        expected_digest: str | None = None,
        expected_diff_id: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Start to read.

        Args:
            source: The stream as it comes.
            tar_split: Where to write how the tar is put together.
            tree_is_empty: Whether nothing is in the layer before the stream is unpacked into it.
            expected_digest: Its promised digest.
            expected_diff_id: The promised digest of the uncompressed stream.
            progress: Told how many bytes of ``source`` have been read.

        Raises:
            InvalidRequest: A promised digest is no digest.
            InvalidArchive: The compression is damaged at its very beginning.
        """
        self._expected = (expected_digest, expected_diff_id)
        self._follower = Follower(tar_split, tree_is_empty=tree_is_empty)
        self._came = _Measured(source, _Digest(_algorithm(expected_digest)), _told(source, progress))
        unpacked = decompressed(cast(BinaryIO, self._came))
        self._compression = unpacked.compression
        self._tar = _Digest(_algorithm(expected_diff_id))
        if self._compression is Compression.NONE and self._came.digest.algorithm == self._tar.algorithm:
            self._came.digest = self._tar  # what comes is the tar; it need not be digested twice
        self._ahead = ReadAhead(unpacked, (self._follow,))

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

    def _follow(self, place: Place) -> None:
        self._follower.follow(cast(BinaryIO, _Digested(place, self._tar)))

    def finish(self, layer: Layer) -> Layer:
        """Read what is left, verify the promises, and note in a layer's record what came.

        Raises:
            DigestMismatch: Something else came than was promised.
        """
        while self._ahead.read(_PIECE):
            pass
        self._came.drain()  # what follows the end of the compressed data is part of the blob
        digest, diff_digest = str(self._came.digest), str(self._tar)
        for expected, actual in zip(self._expected, (digest, diff_digest), strict=True):
            if expected is not None and expected != actual:
                raise DigestMismatch(expected, actual)
        return layer._replace(
            compressed_digest=digest,
            compressed_size=self._came.digest.size,
            diff_digest=diff_digest,
            diff_size=self._tar.size,
            compression=int(self._compression),
            uids=self._follower.uids,
            gids=self._follower.gids,
        )

    @property
    def has_tar_split(self) -> bool:
        """Whether the tar-split file is whole, once everything has been read."""
        return self._follower.has_tar_split

    @property
    def needs_proof(self) -> bool:
        """Whether the tar-split file may fail to give the tar back, which only a trial shows."""
        return self._follower.needs_proof


class _Digest:
    """The digest and the size of a stream."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._digest = new_digest(algorithm, usedforsecurity=False)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self._digest.hexdigest()}"

    def add(self, data: memoryview) -> None:
        """Digest what comes next."""
        self.size += len(data)
        self._digest.update(data)


class _Digested(io.RawIOBase):
    """A stream that is digested while it is read."""

    def __init__(self, place: Place, digest: _Digest) -> None:
        super().__init__()
        self._place = place
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        count = self._place.readinto(view)
        self._digest.add(view[:count])
        return count

    def next_view(self) -> memoryview:
        """See :class:`hostspec.archive.byte_source.Viewed`."""
        view = self._place.next_view()
        self._digest.add(view)
        return view


class _Measured(io.RawIOBase):
    """A stream that is measured and digested while it is read.

    Attributes:
        digest: Of what has been read. Another may take its place, and is then left to whoever put it there.
    """

    def __init__(self, source: BinaryIO, digest: _Digest, tell: Callable[[int], None] | None) -> None:
        super().__init__()
        self._source = source
        self._read_into = _reader_of(source)
        self._own = self.digest = digest
        self._tell = tell

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._note(memoryview(data))
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        count = self._read_into(view)
        self._note(view[:count])
        return count

    def drain(self) -> None:
        """Read to the end."""
        while self.read(_PIECE):
            pass

    def _note(self, data: memoryview) -> None:
        if data:
            if self.digest is self._own:
                self._own.add(data)
            if self._tell is not None:
                self._tell(len(data))


def _reader_of(source: BinaryIO) -> _ReadInto:
    """Return how to read: without a copy where that is sure to be the same, else by ``read``."""
    if isinstance(source, io.RawIOBase) or type(source) is io.BufferedReader:
        return cast(_ReadInto, source.readinto)

    def read_into(view: memoryview) -> int:
        data = source.read(len(view))
        view[: len(data)] = data
        return len(data)

    return read_into


def _algorithm(expected: str | None) -> str:
    """Return the algorithm of a promised digest, or the usual one."""
    name = (expected or "sha256:").partition(":")[0]
    if name not in _ALGORITHMS:
        raise InvalidRequest(
            f"digest {expected!r}", f"must be ALGORITHM:HEX, with {' or '.join(_ALGORITHMS)}"
        )
    return name


def _told(source: BinaryIO, progress: ProgressCallback | None) -> Callable[[int], None] | None:
    if progress is None:
        return None
    total = _length(source)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(Progress(done, total, "bytes"))

    return tell


def _length(source: BinaryIO) -> int | None:
    """Return how many bytes a stream has, where it is a file that is read from its beginning."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except (OSError, AttributeError, ValueError):
        return None
