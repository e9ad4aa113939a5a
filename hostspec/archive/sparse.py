"""Maps of sparse files: where the stored bytes belong.

Four forms, all of GNU tar ("Storing Sparse Files" in its manual): the old one in the header and
extension headers after it, and PAX versions 0.0 (repeated records), 0.1 (one record) and
1.0 (text before the data).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, starmap
from typing import NamedTuple

from hostspec.archive.headers import BLOCK
from hostspec.archive.numbers import decimal, number
from hostspec.errors import InvalidArchive

__all__ = [
    "MAX_SEGMENTS",
    "NAME_KEY",
    "Segment",
    "SparseMap",
    "is_map_key",
    "is_pair_key",
    "read_old_map",
    "read_pax_map",
]

MAX_SEGMENTS = 1 << 16
"""Segments that a file may have; a map is held in memory, so that it needs a bound."""

NAME_KEY = b"GNU.sparse.name"
"""The PAX record with the real name of a sparse file; the header has one for readers that know none."""

_PREFIX = b"GNU.sparse."
_PAIR_KEYS = frozenset({b"GNU.sparse.offset", b"GNU.sparse.numbytes"})
_MAX_TEXT = 1 << 21
_MAX_SIZE = (1 << 63) - 1

# The old form, in the header and in extension headers.
_OLD_SEGMENT_SIZE = 24
_OLD_SEGMENTS = slice(386, 482)
_OLD_MORE = 482
_OLD_REAL_SIZE = slice(483, 495)
_OLD_EXTENSION_SEGMENTS = slice(0, 504)
_OLD_EXTENSION_MORE = 504


class Segment(NamedTuple):
    """A run of stored bytes."""

    offset: int
    """Where it belongs, in bytes from the start of the file."""
    size: int
    """In bytes."""


class SparseMap(NamedTuple):
    """A file with holes."""

    segments: tuple[Segment, ...]
    """Ascending and disjoint; what lies between reads as zeros."""
    size: int
    """Length of the file in bytes."""

    def check(self, stored: int) -> SparseMap:
        """Return the map if it is one for a member with ``stored`` bytes of data.

        Raises:
            InvalidArchive: Segments overlap, go beyond the end or are not the data that is there.
        """
        if not 0 <= self.size <= _MAX_SIZE:
            raise InvalidArchive(f"the size of the sparse file cannot be {self.size}")
        if any(segment.offset < 0 or segment.size < 0 for segment in self.segments):
            raise InvalidArchive("its sparse map has a negative number")
        for one, other in pairwise(self.segments):
            if one.offset + one.size > other.offset:
                raise InvalidArchive("its sparse map is not ascending")
        if self.segments and self.segments[-1].offset + self.segments[-1].size > self.size:
            raise InvalidArchive("its sparse map goes beyond the end of the file")
        if sum(segment.size for segment in self.segments) != stored:
            raise InvalidArchive("its sparse map does not fit the stored data")
        return self


def is_pair_key(key: bytes) -> bool:
    """Tell whether this is a key that version 0.0 repeats for each segment."""
    return key in _PAIR_KEYS


def is_map_key(key: bytes) -> bool:
    """Tell whether this key speaks of a sparse file."""
    return key.startswith(_PREFIX) and key != NAME_KEY


def read_old_map(header: bytes, next_block: Callable[[], bytes | None]) -> SparseMap:
    """Read the old form.

    Args:
        header: The header of the member.
        next_block: Gives the blocks after it.

    Raises:
        InvalidArchive: A field is no number, the archive ends, or there are too many segments.
    """
    segments = _old_segments(header[_OLD_SEGMENTS])
    more = header[_OLD_MORE]
    while more:
        extension = next_block()
        if extension is None:
            raise InvalidArchive("the archive ends in its sparse map")
        segments += _old_segments(extension[_OLD_EXTENSION_SEGMENTS])
        if len(segments) > MAX_SEGMENTS:
            raise InvalidArchive("its sparse map is too large")
        more = extension[_OLD_EXTENSION_MORE]
    return SparseMap(tuple(segments), number(header[_OLD_REAL_SIZE], "real size"))


def read_pax_map(
    records: Mapping[bytes, bytes],
    pairs: Sequence[bytes],
    next_content: Callable[[int], bytes],
) -> SparseMap:
    """Read one of the PAX forms.

    Args:
        records: The records of the member.
        pairs: Values of the records that version 0.0 repeats, in their order.
        next_content: Gives so many bytes of what is stored for the member.

    Raises:
        InvalidArchive: The map is damaged, or of a version that is not known.
    """
    version = (records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"0"))
    size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
    if size is None:
        raise InvalidArchive("its sparse map has no file size")
    if version == (b"1", b"0"):
        segments = _read_text(next_content)
    elif version[0] == b"0":
        text = records.get(b"GNU.sparse.map")
        segments = _from_texts(text.split(b",") if text else pairs)
    else:
        raise InvalidArchive("the version of its sparse map is not known")
    return SparseMap(segments, decimal(size, "real size"))


def _read_text(next_content: Callable[[int], bytes]) -> tuple[Segment, ...]:
    """Read the map that stands before the data in version 1.0: lines, filled up to whole blocks."""
    text = bytearray()
    lines = 0
    wanted = 1
    while lines < wanted:
        block = next_content(BLOCK)
        text += block
        lines += block.count(b"\n")
        if len(text) > _MAX_TEXT:
            raise InvalidArchive("its sparse map is too large")
        if wanted == 1 and lines:
            wanted += 2 * decimal(bytes(text[: text.index(b"\n")]), "sparse map")
    return _from_texts([bytes(line) for line in text.split(b"\n")[1:wanted]])


def _from_texts(texts: Sequence[bytes]) -> tuple[Segment, ...]:
    """Read decimal numbers, alternating offsets and sizes."""
    if len(texts) % 2 or len(texts) > 2 * MAX_SEGMENTS:
        raise InvalidArchive("its sparse map has no whole pairs, or too many")
    values = [decimal(text, "sparse map") for text in texts]
    return tuple(starmap(Segment, zip(values[::2], values[1::2], strict=True)))


def _old_segments(fields: bytes) -> list[Segment]:
    segments = []
    for start in range(0, len(fields), _OLD_SEGMENT_SIZE):
        entry = fields[start : start + _OLD_SEGMENT_SIZE]
        if not entry.strip(b"\0"):
            break
        segments.append(Segment(number(entry[:12], "sparse map"), number(entry[12:], "sparse map")))
    return segments
