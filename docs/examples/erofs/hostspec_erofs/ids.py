"""Which IDs occur in a tree: known once an image is made, they tell at no cost whether a map covers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from hostspec.errors import InvalidIdMap
from hostspec.idmap import IdMap
from hostspec.idshift import ids_in_xattr

__all__ = ["CarriedIds", "carried_ids", "shift_between"]


class CarriedIds(NamedTuple):
    """The host IDs that the files of a tree carry: in their owners, ACLs and capabilities."""

    uids: frozenset[int]
    gids: frozenset[int]

    def are_covered_by(self, shift: IdMap) -> bool:
        """Tell whether a map has an answer for each."""
        return all(shift.uids.find_host(uid) is not None for uid in self.uids) and all(
            shift.gids.find_host(gid) is not None for gid in self.gids
        )


def carried_ids(tree: str) -> CarriedIds:
    """Return the IDs in a tree.

    Raises:
        OSError: The operating system refused.
    """
    uids: set[int] = set()
    gids: set[int] = set()
    for path in _paths(tree):
        found = os.lstat(path)
        uids.add(found.st_uid)
        gids.add(found.st_gid)
        for name in os.listxattr(path, follow_symlinks=False):
            users, groups = ids_in_xattr(name, os.getxattr(path, name, follow_symlinks=False))
            uids |= users
            gids |= groups
    return CarriedIds(frozenset(uids), frozenset(gids))


def _paths(tree: str) -> Iterator[str]:
    yield tree
    # Descriptors keep paths short, however deep the tree is.
    for _, directories, files, directory in os.fwalk(tree, onerror=_fail):
        for name in (*directories, *files):
            yield f"/proc/self/fd/{directory}/{name}"


def _fail(error: OSError) -> None:
    raise error


def shift_between(old: IdMap, new: IdMap) -> IdMap | None:
    """Return the map from host IDs under ``old`` to host IDs under ``new``; ``None`` if it would be empty."""
    if old == new:
        return IdMap()
    try:
        return old.inverse().then(new)
    except InvalidIdMap:
        return None
