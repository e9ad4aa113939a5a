"""Streams that are read piece by piece, whatever they offer for it."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

import pytest

from hostspec.archive.byte_source import pieces_of


class OnlyRead:
    """A stream with nothing but ``read``, which returns less than it is asked for."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._content.read(min(size, 70_001))


class Views:
    """A stream that shows what it has."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def next_view(self) -> memoryview:
        return memoryview(self._content.read(12_345))


@pytest.mark.parametrize("make", [io.BytesIO, OnlyRead, Views])
@pytest.mark.parametrize("size", [0, 1, 1_500_000])
def test_the_pieces_of_a_stream_are_its_content(make: type, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    pieces = [bytes(piece) for piece in pieces_of(cast(BinaryIO, make(content)))]
    assert b"".join(pieces) == content
    assert all(pieces)
