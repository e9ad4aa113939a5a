"""Compressing a tar on its way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from hostspec.archive.compression import Compression

__all__ = ["compressing"]

_FAST_AND_SMALL = 3
_GZIP_THREADS = 2
_GZIP_BLOCK = 1 << 20


@contextmanager
def compressing(target: BinaryIO, compression: Compression) -> Iterator[BinaryIO]:
    """Give a stream that writes to ``target``, compressed; ``target`` stays open.

    The same content in the same pieces gives the same bytes, with the same versions of the libraries. An
    error of ``target`` may come from a later write, or from the end.
    """
    if compression is Compression.NONE:
        yield target
        return
    with _compressor(target, compression) as stream:
        yield stream


def _compressor(target: BinaryIO, compression: Compression) -> BinaryIO:
    # Each is imported where it is used: one process compresses in one way at most.
    # ruff: noqa: PLC0415
    if compression is Compression.GZIP:
        from isal.igzip_threaded import open as open_gzip

        # Ten times as fast as the standard library's, for a result that is a tenth longer; and that beside
        # whoever makes the content, with the same result for any number of threads.
        return cast(
            BinaryIO,
            open_gzip(  # type: ignore[no-untyped-call]
                target,
                "wb",
                compresslevel=_FAST_AND_SMALL,
                threads=_GZIP_THREADS,
                block_size=_GZIP_BLOCK,
            ),
        )
    if compression is Compression.BZIP2:
        from bz2 import BZ2File

        return cast(BinaryIO, BZ2File(target, "wb"))
    if compression is Compression.XZ:
        from lzma import LZMAFile

        return cast(BinaryIO, LZMAFile(target, "wb"))
    from zstandard import ZstdCompressor

    return cast(BinaryIO, ZstdCompressor().stream_writer(target, closefd=False))
