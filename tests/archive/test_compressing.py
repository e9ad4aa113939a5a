from __future__ import annotations

import io

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
