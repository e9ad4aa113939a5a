"""Which places of a layer have come in its tar, and as what, in few bytes for each.

Layers have millions of files; a dictionary would take a hundred bytes for each of their names.
"""

from __future__ import annotations

from array import array
from enum import IntEnum
from posixpath import normpath

__all__ = ["Came", "ContentPlaces", "place_in_tree"]

_FIRST_SIZE = 1 << 10
_HASH = (1 << 62) - 1
_STATE = 3


class Came(IntEnum):
    """As what something came last."""

    CONTENT = 1
    """As a file in which there is something."""
    DIRECTORY = 2
    OTHER = 3


_STATES: tuple[Came | None, ...] = (None, *Came)


class ContentPlaces:
    """Tells of a place whether it has been noted, and as what; takes 12 to 24 bytes for each.

    Places are known by 62 bits of their hash, which Python keys with a secret of the process.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.clear()

    def get(self, place: bytes) -> Came | None:
        """Return as what a place was noted last, or ``None`` if it was not noted."""
        return _STATES[self._table[self._slot(_key(place))] & _STATE]

    def note(self, place: bytes, came: Came) -> Came | None:
        """Note a place, and return as what it was noted before."""
        key = _key(place)
        slot = self._slot(key)
        before = self._table[slot] & _STATE
        self._table[slot] = key | came
        if not before:
            self._noted += 1
            if self._noted * 3 > len(self._table) * 2:
                self._grow()
        return _STATES[before]

    def clear(self) -> None:
        """Let go of everything."""
        self._noted = 0
        # A table with open addressing; an entry is a hash and two bits, which are zero only where it is free.
        self._table = array("Q", (0,)) * _FIRST_SIZE

    def _slot(self, key: int) -> int:
        """Return where a key is in the table, or would be."""
        table = self._table
        last = len(table) - 1
        slot = key >> 2 & last
        while (entry := table[slot]) and entry ^ key > _STATE:
            slot = slot + 1 & last
        return slot

    def _grow(self) -> None:
        old = self._table
        self._table = array("Q", (0,)) * (2 * len(old))
        for entry in old:
            if entry:
                self._table[self._slot(entry)] = entry


def place_in_tree(name: bytes) -> bytes:
    """Return the path, relative to the root, of what a member of that name is unpacked to.

    All names of one place have it in common: dots count as written, whatever links there are on the way.
    """
    path = name.removeprefix(b"./").strip(b"/")
    if path[:1] == b"." or b"/." in path or b"//" in path:
        return normpath(b"/" + path)[1:]
    return path


def _key(place: bytes) -> int:
    return (hash(place) & _HASH) << 2
