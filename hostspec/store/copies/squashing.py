"""Telling which owners are replaced, where that is allowed (``ignore_chown_errors``).

It is told from the owners that the records of layers have, which are those in their tars.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from hostspec.idmap import IdMap, IdRanges
from hostspec.store.format.records import Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.lineage import with_descent
from hostspec.store.notices import warn

__all__ = ["Owners", "assignable_ids", "warn_of_squashing"]


class Owners(NamedTuple):
    """The container IDs that occur in an image, as far as the records of its layers say."""

    uids: frozenset[int]
    """UIDs."""
    gids: frozenset[int]
    """GIDs."""
    complete: bool
    """Whether the records of all its layers have them."""

    @classmethod
    def of(cls, layers: Snapshot[Layer], top: Layer) -> Owners:
        """Return those of a layer and all that it stands on."""
        chain = list(with_descent(layers, top.id))
        return cls(
            frozenset(uid for layer in chain for uid in layer.uids),
            frozenset(gid for layer in chain for gid in layer.gids),
            complete=all(layer.uids and layer.gids for layer in chain),
        )

    def outside(self, idmap: IdMap) -> Mapping[str, list[int]]:
        """Return those that a map does not cover, by kind."""
        halves: tuple[tuple[str, frozenset[int], IdRanges], ...] = (
            ("UIDs", self.uids, idmap.uids),
            ("GIDs", self.gids, idmap.gids),
        )
        found = {
            kind: sorted(each for each in ids if ranges and ranges.find_host(each) is None)
            for kind, ids, ranges in halves
        }
        return {kind: ids for kind, ids in found.items() if ids}


def assignable_ids() -> IdMap:
    """Return the IDs that this process can give to files: those of its user namespace, or only its own."""
    if os.geteuid() != 0:
        own = ((os.geteuid(), os.geteuid(), 1),), ((os.getegid(), os.getegid(), 1),)
        return IdMap(*own)
    return IdMap(_ids_inside("/proc/self/uid_map"), _ids_inside("/proc/self/gid_map"))


def warn_of_squashing(whose: str, outside: Mapping[str, list[int]]) -> None:
    """Say which IDs are squashed.

    Args:
        whose: Whose IDs they are, and why they cannot stay.
        outside: The IDs by kind; none where no record tells.
    """
    ids = "; ".join(f"{kind} {', '.join(map(str, found))}" for kind, found in outside.items())
    warn(f"{whose} are squashed to the nearest in it: {ids or 'which ones, no record tells'}")


def _ids_inside(path: str) -> list[tuple[int, int, int]]:
    with open(path, encoding="ascii") as file:
        rows = [line.split() for line in file]
    return [(int(first), int(first), int(size)) for first, _, size in rows]
