"""Which places of a layer have come in its tar, and whether with content, in few bytes for each.

Layers have millions of files; a dictionary would take a hundred bytes for each of their names.
"""

from __future__ import annotations

from array import array

__all__ = ["ContentPlaces"]

_FIRST_SIZE = 1 << 10
_HASH = (1 << 62) - 1
_USED = 2
_WITH_CONTENT = 1


class ContentPlaces:
    """Tells of a place whether it has been noted, and with what; takes 12 to 24 bytes for each.

    Places are known by 62 bits of their hash, which Python keys with a secret of the process.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.clear()

    def get(self, place: bytes) -> bool | None:
        """Tell whether a place was noted last with content, or ``None`` if it was not noted."""
        entry = self._table[self._slot(_key(place))]
        return bool(entry & _WITH_CONTENT) if entry else None

    def note(self, place: bytes, *, has_content: bool) -> None:
        """Note a place, in place of what was noted of it before."""
        key = _key(place)
        slot = self._slot(key)
        if not self._table[slot]:
            self._noted += 1
            if self._noted * 3 > len(self._table) * 2:
                self._grow()
                slot = self._slot(key)
        self._table[slot] = key | has_content

    def clear(self) -> None:
        """Let go of everything."""
        self._noted = 0
        # A table with open addressing; an entry is a hash and two bits, or zero where it is free.
        self._table = array("Q", (0,)) * _FIRST_SIZE

    def _slot(self, key: int) -> int:
        """Return where a key is in the table, or would be."""
        table = self._table
        last = len(table) - 1
        slot = key >> 2 & last
        while (entry := table[slot]) and entry | _WITH_CONTENT != key | _WITH_CONTENT:
            slot = slot + 1 & last
        return slot

    def _grow(self) -> None:
        old = self._table
        self._table = array("Q", (0,)) * (2 * len(old))
        for entry in old:
            if entry:
                self._table[self._slot(entry)] = entry


def _key(place: bytes) -> int:
    return (hash(place) & _HASH) << 2 | _USED
