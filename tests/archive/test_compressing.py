from __future__ import annotations

import errno
import gzip
import io
import os
import random
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.compressing import compressing
from hostspec.archive.compression import Compression, decompressed, detect


def compressed(pieces: list[bytes], compression: Compression) -> bytes:
    target = io.BytesIO()
    with compressing(target, compression) as stream:
        for piece in pieces:
            stream.write(piece)
    assert not target.closed
    return target.getvalue()


@pytest.mark.parametrize("compression", Compression)
@given(pieces=st.lists(st.binary(max_size=3000), max_size=5))
def test_what_is_compressed_is_decompressed_again(compression: Compression, pieces: list[bytes]) -> None:
    content = b"tar" + b"".join(pieces)
    result = compressed([b"tar", *pieces], compression)

    assert detect(result) is compression
    assert decompressed(io.BytesIO(result)).read() == content
    assert compressed([content], compression) == compressed([content], compression)


class Full(io.RawIOBase):
    """A target that takes nothing more."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("pieces", [1, 100])
def test_a_target_that_is_full_is_an_error(compression: Compression, pieces: int) -> None:
    content = random.Random(0).randbytes(1 << 17)  # noqa: S311 - what cannot be compressed

    def write_all() -> None:
        with compressing(cast("BinaryIO", Full()), compression) as stream:
            for _ in range(pieces):
                stream.write(content)

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_all()


def test_megabytes_are_compressed_as_the_usual_tools_read_them() -> None:
    content = random.Random(1).randbytes(1 << 20) * 3 + b"tar" * (1 << 20) + b"end"  # noqa: S311 - content
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    assert gzip.decompress(compressed(pieces, Compression.GZIP)) == content
