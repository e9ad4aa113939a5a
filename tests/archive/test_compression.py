"""Layers in every common compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.compression import Compression, decompressed
from hostspec.archive.zstd_frames import ZstdFrames
from hostspec.errors import InvalidArchive

COMPRESSORS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.BZIP2: bz2.compress,
    Compression.GZIP: lambda data: gzip.compress(data, 6),
    Compression.XZ: lzma.compress,
    Compression.ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
}
REAL = [each for each in Compression if each is not Compression.NONE]
ALL = pytest.mark.parametrize("compression", list(Compression), ids=lambda each: each.name)
COMPRESSED = pytest.mark.parametrize("compression", REAL, ids=lambda each: each.name)

SAMPLE = random.Random(3).randbytes(60_000) + b"again and again " * 20_000  # noqa: S311 - no secret


def read(data: bytes) -> bytes:
    with decompressed(io.BytesIO(data)) as stream:
        return stream.read()


@ALL
def test_content_comes_back_and_its_compression_is_known(compression: Compression) -> None:
    with decompressed(io.BytesIO(COMPRESSORS[compression](SAMPLE))) as stream:
        assert stream.read() == SAMPLE
        assert stream.compression is compression


@ALL
@pytest.mark.parametrize("size", [0, 1, 5, 511])
def test_short_content_comes_back(compression: Compression, size: int) -> None:
    assert read(COMPRESSORS[compression](b"t" * size)) == b"t" * size


@COMPRESSED
def test_several_parts_are_one_content(compression: Compression) -> None:
    parts = [SAMPLE[:1000], b"", SAMPLE[1000:]]
    assert read(b"".join(map(COMPRESSORS[compression], parts))) == SAMPLE


@COMPRESSED
def test_content_that_ends_too_early_is_refused(compression: Compression) -> None:
    data = COMPRESSORS[compression](SAMPLE)
    for length in (7, 30, len(data) // 2, len(data) - 9, len(data) - 4, len(data) - 1):
        with pytest.raises(InvalidArchive, match="damaged"):
            read(data[:length])


@COMPRESSED
def test_content_with_an_error_is_refused(compression: Compression) -> None:
    data = bytearray(COMPRESSORS[compression](SAMPLE))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InvalidArchive, match="damaged"):
        read(bytes(data))


@given(st.sampled_from(REAL), st.binary(max_size=200))
def test_random_bytes_never_make_another_error(compression: Compression, data: bytes) -> None:
    with suppress(InvalidArchive):
        read(COMPRESSORS[compression](b"")[:6] + data)


@COMPRESSED
def test_a_bomb_does_not_fill_the_memory(compression: Compression) -> None:
    zeros = bytes(1 << 20)
    if compression is Compression.GZIP:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = b"".join(packer.compress(zeros) for _ in range(300)) + packer.flush()
    else:
        data = COMPRESSORS[compression](zeros * 50) * 6
    buffer = memoryview(bytearray(1 << 16))
    total = 0
    # From now on the peak is that of this test, whatever others have had in memory before (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_megabytes()
    stream = decompressed(io.BytesIO(data))
    while count := stream.readinto(buffer):
        total += count
    assert total == 300 << 20
    assert peak_megabytes() - before < 100


def test_zeros_after_gzip_are_padding_and_garbage_is_refused() -> None:
    assert read(gzip.compress(b"x") + bytes(1000)) == b"x"
    with pytest.raises(InvalidArchive):
        read(gzip.compress(b"x") + b"garbage")


def test_zstd_with_skippable_frames_is_read() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    whole = zstandard.ZstdCompressor().compress(b"x")
    assert read(skippable + whole + skippable + whole) == b"xx"


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 50), st.booleans(), st.booleans())
def test_the_end_of_zstd_frames_is_known(parts: list[bytes], step: int, checksum: bool, sized: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=sized)
    frames = ZstdFrames()
    ends = {0}
    data = b""
    for part in parts:
        data += compressor.compress(part)
        ends.add(len(data))
    for at in range(0, len(data), step):
        frames.feed(data[at : at + step])
        assert frames.between_frames == (min(at + step, len(data)) in ends)


def test_errors_of_the_stream_itself_are_not_taken_for_damage() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "the disk is broken")
            return super().read(size)

    with pytest.raises(OSError, match="broken"):
        decompressed(Broken(gzip.compress(SAMPLE))).read()


def peak_megabytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10
