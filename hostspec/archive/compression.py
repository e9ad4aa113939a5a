"""Recognising and undoing the compression of a layer."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import igzip_lib

from hostspec.archive.zstd_frames import ZstdFrames
from hostspec.errors import InvalidArchive

__all__ = ["Compression", "decompressed", "detect"]

_INPUT_SIZE = 1 << 19
_LONGEST_MAGIC = 6
_XZ_MEMORY = 96 << 20


class Compression(IntEnum):
    """How a layer is compressed; the numbers are those that the Go library records."""

    NONE = 0
    BZIP2 = 1
    GZIP = 2
    XZ = 3
    ZSTD = 4


_MAGICS = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"BZh", Compression.BZIP2),
    (b"\xfd7zXZ\x00", Compression.XZ),
)
_ZSTD_SKIPPABLE = range(0x50, 0x60)


def detect(head: bytes) -> Compression:
    """Tell the compression from the first bytes; six are enough."""
    for magic, compression in _MAGICS:
        if head.startswith(magic):
            return compression
    if head[1:4] == b"\x2a\x4d\x18" and head[0] in _ZSTD_SKIPPABLE:
        return Compression.ZSTD
    return Compression.NONE


def decompressed(stream: BinaryIO) -> DecompressedStream:
    """Return what is in a stream, whether it is compressed or not.

    Several compressed parts one after the other are one content, as for gzip(1) and zstd(1).
    Memory is bounded whatever the content: about 10 MB, and for xz what the compressor chose, up to 96 MB.

    Args:
        stream: A readable stream; it is not closed.

    Returns:
        A readable binary stream. Its reads raise InvalidArchive where the content is damaged or
        ends too early.
    """
    head = b""
    while len(head) < _LONGEST_MAGIC:
        piece = stream.read(_LONGEST_MAGIC - len(head))
        if not piece:
            break
        head += piece
    return DecompressedStream(stream, head, detect(head))


class DecompressedStream(io.RawIOBase, BinaryIO):
    """What is in a compressed stream."""

    def __init__(self, stream: BinaryIO, head: bytes, compression: Compression) -> None:
        """Decompress ``head`` and what follows it in ``stream``."""
        super().__init__()
        self.compression = compression
        """How the stream is compressed."""
        self._content = _CONTENTS[compression](_Compressed(stream, head))

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into ``buffer``, at least one byte but at the end.

        Raises:
            InvalidArchive: The content is damaged or ends too early.
        """
        if self.closed:
            raise ValueError("read of a closed stream")
        try:
            return self._content(memoryview(buffer).cast("B"))
        except _DAMAGES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the stream below could not be read
            raise InvalidArchive(f"the {self.compression.name.lower()} data is damaged: {error}") from error


class _Compressed:
    """The compressed stream, its first bytes put back."""

    def __init__(self, stream: BinaryIO, head: bytes) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = _INPUT_SIZE) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._stream.read(size)

    def readinto(self, view: memoryview) -> int:
        direct = getattr(self._stream, "readinto", None)
        if self._head or direct is None:
            piece = self.read(len(view))
            view[: len(piece)] = piece
            return len(piece)
        return cast("int", direct(view) or 0)


class _Decompressor(Protocol):
    """What the decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Parts:
    """Several compressed parts one after the other, read as one."""

    def __init__(self, source: _Compressed, make: Callable[[], _Decompressor]) -> None:
        self._source = source
        self._make = make
        self._decompressor = make()

    def __call__(self, view: memoryview) -> int:
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._next_part()
                if not data:
                    return 0
                self._decompressor = self._make()
            elif self._decompressor.needs_input:
                data = self._source.read()
                if not data:
                    raise EOFError("it ends too early")
            piece = self._decompressor.decompress(data, len(view))
            if piece:
                view[: len(piece)] = piece
                return len(piece)

    def _next_part(self) -> bytes:
        """Return the beginning of the next part; zeros between and after parts are padding."""
        data = self._decompressor.unused_data.lstrip(b"\0")
        while not data:
            read = self._source.read()
            if not read:
                return b""
            data = read.lstrip(b"\0")
        return data


class _Zstd:
    """Zstd frames one after the other, read as one."""

    def __init__(self, source: _Compressed) -> None:
        self._source = source
        self._frames = ZstdFrames()
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            cast("BinaryIO", self),
            read_size=_INPUT_SIZE,
            read_across_frames=True,
        )

    def read(self, size: int) -> bytes:
        """Give the decompressor its input, and follow the frames in it."""
        data = self._source.read(size)
        self._frames.feed(data)
        return data

    def __call__(self, view: memoryview) -> int:
        count = self._reader.readinto(view)
        if not count and not self._frames.between_frames:
            raise EOFError("it ends too early")
        return count


# The stubs of isal take the class for an instance of it.
_IsalError = cast("type[Exception]", igzip_lib.IsalError)
_DAMAGES: tuple[type[Exception], ...] = (
    EOFError,
    _IsalError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    OSError,
    ValueError,
)


def _gzip(source: _Compressed) -> Callable[[memoryview], int]:
    return _Parts(source, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _xz(source: _Compressed) -> Callable[[memoryview], int]:
    return _Parts(source, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))


_CONTENTS: dict[Compression, Callable[[_Compressed], Callable[[memoryview], int]]] = {
    Compression.NONE: lambda source: source.readinto,
    Compression.GZIP: _gzip,
    Compression.BZIP2: lambda source: _Parts(source, bz2.BZ2Decompressor),
    Compression.XZ: _xz,
    Compression.ZSTD: _Zstd,
}
