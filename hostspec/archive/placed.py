"""What has been unpacked from this tar so far, in eight bytes for each name.

Whiteouts speak of the layers below only, never of the tar they stand in. Members come in any order, so
one has to know what came from the same tar before.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

__all__ = ["PlacedNames"]

_SORTED_PIECE = 1 << 16
_LOOK_THROUGH = 256


class PlacedNames:
    """A set of (inode number of a directory, name in it) that only grows."""

    def __init__(self) -> None:
        """Start empty."""
        self._recent = array("q")
        self._sorted: list[array[int]] = []

    def add(self, directory: int, name: bytes) -> None:
        """Add a name.

        Only its 64-bit hash is kept; Python keys the hash of bytes with a secret of the process.
        """
        self._recent.append(hash((directory, name)))

    def __contains__(self, place: object) -> bool:
        """Tell whether ``(directory, name)`` was added."""
        wanted = hash(place)
        if len(self._recent) > _LOOK_THROUGH:
            self._sort()
        return wanted in self._recent or any(_holds(piece, wanted) for piece in self._sorted)

    def _sort(self) -> None:
        """Put what was added since the last look-up in order, in pieces, so that little memory is needed."""
        for start in range(0, len(self._recent), _SORTED_PIECE):
            self._sorted.append(array("q", sorted(self._recent[start : start + _SORTED_PIECE])))
        self._recent = array("q")
        while len(self._sorted) > 1 and len(self._sorted[-1]) * 2 > len(self._sorted[-2]):
            last = self._sorted.pop()
            if len(last) + len(self._sorted[-1]) > _SORTED_PIECE:
                self._sorted.append(last)
                break
            self._sorted[-1] = array("q", sorted((*self._sorted[-1], *last)))


def _holds(piece: array[int], wanted: int) -> bool:
    at = bisect_left(piece, wanted)
    return at < len(piece) and piece[at] == wanted
