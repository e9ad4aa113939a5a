"""ID maps: which host ID stands for which container ID.

Terms, as user_namespaces(7) has them:

container ID
    An ID as seen inside a user namespace, in an image's tar, in ``id`` of a container.
host ID
    The ID outside, in the user namespace in which the store's file system is mounted.
range
    ``size`` consecutive container IDs from ``container_id`` on, that stand for as many
    consecutive host IDs from ``host_id`` on. Written ``CONTAINER:HOST:SIZE``.

An empty map is *no map*: both sides are the same.
IDs are unsigned 32-bit numbers; 4,294,967,295 is no ID (the kernel's "unchanged").
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from hostspec.errors import IdNotMapped, InvalidIdMap

__all__ = ["ID_LIMIT", "IdMap", "IdRange", "IdRanges"]

ID_LIMIT = 0xFFFF_FFFF
"""The first number that is not an ID."""

IDENTITY_RANGE = (0, 0, ID_LIMIT)

# Far beyond any ID, with leading zeros; Python itself refuses to read numbers of some thousand digits.
_MOST_DIGITS = 100


class IdRange(NamedTuple):
    """``size`` container IDs from ``container_id`` on stand for host IDs from ``host_id`` on."""

    container_id: int
    host_id: int
    size: int

    def __str__(self) -> str:
        return f"{self.container_id}:{self.host_id}:{self.size}"

    @classmethod
    def parse(cls, text: str) -> "IdRange":
        """Read ``CONTAINER:HOST:SIZE``.

        Raises:
            InvalidIdMap: ``text`` is not three decimal numbers, or they are no range of IDs.
        """
        fields = text.strip().split(":")
        numeric = all(field.isascii() and field.isdigit() and len(field) <= _MOST_DIGITS for field in fields)
        if len(fields) != len(cls._fields) or not numeric:
            raise InvalidIdMap(f"ID range {text!r}", "must be CONTAINER:HOST:SIZE in decimal numbers")
        parsed = cls(*map(int, fields))
        parsed.check()
        return parsed

    def check(self) -> None:
        """Raise InvalidIdMap unless the range is non-empty and stays within 32 bits."""
        if min(self) < 0:
            raise InvalidIdMap(f"ID range {self}", "has a negative number")
        if self.size == 0:
            raise InvalidIdMap(f"ID range {self}", "is empty (its size is 0)")
        if max(self.container_id, self.host_id) + self.size > ID_LIMIT:
            raise InvalidIdMap(f"ID range {self}", f"goes beyond the last 32-bit ID, {ID_LIMIT - 1}")


class IdRanges:
    """The ranges for one kind of ID, either UIDs or GIDs.

    The order of the ranges is kept, as it is part of what a store records;
    look-ups use two sorted indexes and cost O(log ranges).
    Immutable and hashable; two are equal when they map alike, whatever their order.
    """

    __slots__ = ("_by_container", "_by_host", "_kind", "_ranges")

    def __init__(self, ranges: Iterable[IdRange | tuple[int, int, int]] = (), *, kind: str = "ID") -> None:
        """Take ``ranges`` and refuse those that contradict each other.

        Args:
            ranges: Ranges, or ``(container_id, host_id, size)``.
            kind: ``"UID"`` or ``"GID"``, for messages.

        Raises:
            InvalidIdMap: A range is empty, leaves 32 bits, or overlaps another on either side.
        """
        self._kind = kind
        self._ranges = tuple(IdRange(*each) for each in ranges)
        for each in self._ranges:
            each.check()
        self._by_container = _sorted_and_disjoint(self._ranges, 0, "container", kind)
        self._by_host = _sorted_and_disjoint(self._ranges, 1, "host", kind)

    @classmethod
    def parse(cls, texts: Iterable[str], *, kind: str = "ID") -> "IdRanges":
        """Read ranges written ``CONTAINER:HOST:SIZE``, several of them also joined by commas."""
        return cls(
            (IdRange.parse(part) for text in texts for part in text.split(",")),
            kind=kind,
        )

    def __iter__(self) -> Iterator[IdRange]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdRanges) and self._merged() == other._merged()

    def __hash__(self) -> int:
        return hash(self._merged())

    def __str__(self) -> str:
        return ",".join(map(str, self._ranges))

    def __repr__(self) -> str:
        return f"IdRanges.parse({[str(each) for each in self._ranges]!r})"

    def to_host(self, container_id: int) -> int:
        """Return the host ID of ``container_id``.

        Raises:
            IdNotMapped: No range covers it. The caller adds the path.
        """
        found = self.find_host(container_id)
        if found is None:
            raise IdNotMapped("", f"container {self._kind}", container_id)
        return found

    def to_container(self, host_id: int) -> int:
        """Return the container ID of ``host_id``.

        Raises:
            IdNotMapped: No range covers it. The caller adds the path.
        """
        found = self.find_container(host_id)
        if found is None:
            raise IdNotMapped("", f"host {self._kind}", host_id)
        return found

    def find_host(self, container_id: int) -> int | None:
        """Return the host ID of ``container_id``, or ``None``."""
        if not self._ranges:
            return container_id
        at = bisect_right(self._by_container, container_id, key=itemgetter(0)) - 1
        if at < 0:
            return None
        start, host, size = self._by_container[at]
        offset = container_id - start
        return host + offset if offset < size else None

    def find_container(self, host_id: int) -> int | None:
        """Return the container ID of ``host_id``, or ``None``."""
        if not self._ranges:
            return host_id
        at = bisect_right(self._by_host, host_id, key=itemgetter(1)) - 1
        if at < 0:
            return None
        container, start, size = self._by_host[at]
        offset = host_id - start
        return container + offset if offset < size else None

    def inverse(self) -> "IdRanges":
        """Return the map in the other direction."""
        return IdRanges(((host, container, size) for container, host, size in self._ranges), kind=self._kind)

    def then(self, outer: "IdRanges") -> "IdRanges":
        """Compose: map by ``self``, and what comes out by ``outer``.

        The result covers the IDs that both cover.
        An empty result cannot be told from "no map", so it is refused.

        Raises:
            InvalidIdMap: Nothing is covered by both.
        """
        if not outer:
            return self
        if not self:
            return outer
        pieces: list[IdRange] = []
        for container, middle, size in self._ranges:
            for outer_start, host, outer_size in outer._by_container:  # noqa: SLF001 - of the same class
                low = max(middle, outer_start)
                high = min(middle + size, outer_start + outer_size)
                if low < high:
                    pieces.append(IdRange(container + low - middle, host + low - outer_start, high - low))
        if not pieces:
            raise InvalidIdMap(f"ID ranges {self} then {outer}", "have no ID in common")
        return IdRanges(pieces, kind=self._kind)

    def _merged(self) -> tuple[tuple[int, int, int], ...]:
        """Return what the ranges mean, adjoining ones joined, so that it can be compared."""
        merged: list[tuple[int, int, int]] = []
        for container, host, size in self._by_container:
            if merged:
                last_container, last_host, last_size = merged[-1]
                if last_container + last_size == container and last_host + last_size == host:
                    merged[-1] = (last_container, last_host, last_size + size)
                    continue
            merged.append((container, host, size))
        return () if merged == [IDENTITY_RANGE] else tuple(merged)


class IdMap:
    """The map of one container or layer: UIDs and GIDs, each with its own ranges.

    ``IdMap()`` is no map. Immutable, hashable, equal when both halves map alike.
    """

    __slots__ = ("gids", "uids")

    uids: IdRanges
    gids: IdRanges

    def __init__(
        self,
        uids: IdRanges | Iterable[IdRange | tuple[int, int, int]] = (),
        gids: IdRanges | Iterable[IdRange | tuple[int, int, int]] = (),
    ) -> None:
        """Take the ranges as they are: with only ``uids``, GIDs are not mapped.

        Raises:
            InvalidIdMap: The ranges contradict each other.
        """
        self.uids = uids if isinstance(uids, IdRanges) else IdRanges(uids, kind="UID")
        self.gids = gids if isinstance(gids, IdRanges) else IdRanges(gids, kind="GID")

    @classmethod
    def parse(cls, uids: Iterable[str] = (), gids: Iterable[str] = ()) -> "IdMap":
        """Read ranges written ``CONTAINER:HOST:SIZE``; one half that is missing copies the other.

        Raises:
            InvalidIdMap: A range is malformed, or they contradict each other.
        """
        uid_ranges = IdRanges.parse(uids, kind="UID")
        gid_ranges = IdRanges.parse(gids, kind="GID")
        return cls(
            uid_ranges or IdRanges(gid_ranges, kind="UID"),
            gid_ranges or IdRanges(uid_ranges, kind="GID"),
        )

    def __bool__(self) -> bool:
        """Tell whether anything is mapped at all."""
        return bool(self.uids._merged() or self.gids._merged())  # noqa: SLF001

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.uids == other.uids and self.gids == other.gids

    def __hash__(self) -> int:
        return hash((self.uids, self.gids))

    def __str__(self) -> str:
        if not self:
            return "none"
        if self.uids == self.gids:
            return str(self.uids)
        return f"uids {self.uids or 'none'}, gids {self.gids or 'none'}"

    def __repr__(self) -> str:
        return f"IdMap({list(self.uids)!r}, {list(self.gids)!r})"

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the host IDs of a container's ``uid`` and ``gid``.

        Raises:
            IdNotMapped: One of them is not covered.
        """
        return self.uids.to_host(uid), self.gids.to_host(gid)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the container IDs of a host's ``uid`` and ``gid``.

        Raises:
            IdNotMapped: One of them is not covered.
        """
        return self.uids.to_container(uid), self.gids.to_container(gid)

    def root(self) -> tuple[int, int]:
        """Return the host IDs of the container's root, or of its lowest ID where 0 is not mapped."""
        return _lowest(self.uids), _lowest(self.gids)

    def inverse(self) -> "IdMap":
        """Return the map in the other direction."""
        return IdMap(self.uids.inverse(), self.gids.inverse())

    def then(self, outer: "IdMap") -> "IdMap":
        """Compose: map by ``self``, and what comes out by ``outer``.

        Raises:
            InvalidIdMap: A half of the result would cover nothing.
        """
        return IdMap(self.uids.then(outer.uids), self.gids.then(outer.gids))


def _lowest(ranges: IdRanges) -> int:
    found = ranges.find_host(0)
    return found if found is not None else min(ranges).host_id


def _sorted_and_disjoint(ranges: tuple[IdRange, ...], side: int, name: str, kind: str) -> tuple[IdRange, ...]:
    start: Callable[[IdRange], int] = itemgetter(side)
    ordered = tuple(sorted(ranges, key=start))
    for one, other in pairwise(ordered):
        if start(one) + one.size > start(other):
            raise InvalidIdMap(f"{kind} ranges {one} and {other}", f"overlap in their {name} IDs")
    return ordered
