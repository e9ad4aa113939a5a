"""Compressing a tar on its way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from hostspec.archive.compression import Compression

__all__ = ["compressing"]


@contextmanager
def compressing(target: BinaryIO, compression: Compression) -> Iterator[BinaryIO]:
    """Give a stream that writes to ``target``, compressed; ``target`` stays open."""
    with _compressor(target, compression) as stream:
        yield stream


def _compressor(target: BinaryIO, compression: Compression) -> BinaryIO:
    # Each is imported where it is used: one process compresses in one way at most.
    # ruff: noqa: PLC0415
    if compression is Compression.GZIP:
        from gzip import GzipFile

        # The standard library's: a layer is shrunk once and sent often, and isal shrinks less.
        return cast("BinaryIO", GzipFile(fileobj=target, mode="wb", mtime=0, filename=""))
    if compression is Compression.BZIP2:
        from bz2 import BZ2File

        return cast("BinaryIO", BZ2File(target, "wb"))
    if compression is Compression.XZ:
        from lzma import LZMAFile

        return cast("BinaryIO", LZMAFile(target, "wb"))
    if compression is Compression.ZSTD:
        from zstandard import ZstdCompressor

        return cast("BinaryIO", ZstdCompressor().stream_writer(target, closefd=False))
    return open(target.fileno(), "wb", closefd=False)
