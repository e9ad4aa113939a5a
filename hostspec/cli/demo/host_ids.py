"""Whose host IDs the demo may give to files: all of them as root, else what the user is granted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.kernel.subordinate_ids import own_id_map, subordinate_id_map
from hostspec.kernel.usernamespaces import run_in_user_namespace

__all__ = ["HostIds", "three_maps", "with_host_ids"]

ROOMY = 1 << 24
"""So many IDs are enough for maps of the usual size."""
USUAL_SIZE = 65_536
COMPACT_SIZE = 1_000
"""Container IDs from 0 on that a map covers where host IDs are scarce; larger ones get their own ranges."""
FIRST_AS_ROOT = 1 << 20
"""Out of the way of the machine's own users, and of what is usually granted in ``/etc/subuid``."""
STRIDES_IN_ROUND = 6


class HostIds(NamedTuple):
    """Consecutive host IDs that this process can give to files."""

    first: int
    size: int
    explanation: str
    """For people."""

    @property
    def squash(self) -> bool:
        """Whether there is one ID only, which all files get."""
        return self.size == 1

    @property
    def everything(self) -> bool:
        """Whether this process is the machine's root."""
        return self.size >= ROOMY


def with_host_ids(run: Callable[[HostIds], int]) -> int:
    """Call ``run`` with the best host IDs that can be had, in a user namespace where it takes one."""
    if os.geteuid() == 0:
        return run(_of_root())
    granted = subordinate_id_map()
    if granted is not None:
        count = sum(each.size for each in granted.uids) - 1
        inside = f"In a user namespace with the {count} subordinate IDs of this user."
        try:
            return run_in_user_namespace(granted, lambda: run(HostIds(1, count, inside)))
        except OSError:
            pass  # forbidden here: then with the one ID that everybody has
    only = (
        "This user has no subordinate IDs (an entry in /etc/subuid and /etc/subgid, and the programs "
        "newuidmap and newgidmap, give some),\nso every file gets the user's own ID: owners are squashed."
    )
    try:
        return run_in_user_namespace(own_id_map(), lambda: run(HostIds(0, 1, only)))
    except OSError as error:
        return run(HostIds(os.geteuid(), 1, f"{only}\nThere is no user namespace either: {error.strerror}."))


def _of_root() -> HostIds:
    """Return what this process's own user namespace has, which in a container may be little."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        present = [(int(line.split()[0]), int(line.split()[2])) for line in file]
    first, count = max(present, key=lambda each: each[1])
    if first + count > FIRST_AS_ROOT + ROOMY:
        return HostIds(FIRST_AS_ROOT, min(first + count, ID_LIMIT) - FIRST_AS_ROOT, "")
    if first == 0 and count > 1:
        first, count = 1, count - 1
    return HostIds(first, count, f"As root of a user namespace with {count} IDs.")


def three_maps(host_ids: HostIds, turn: int, used: Sequence[int]) -> tuple[IdMap, ...]:
    """Return a plain map, one of several ranges, and one whose GIDs go elsewhere than its UIDs.

    Args:
        host_ids: What can be had.
        turn: Number of the round; the maps of each have host IDs of their own.
        used: Container IDs that must be covered.
    """
    if host_ids.squash:
        # All that can differ is which container ID it is that the one host ID stands for.
        return tuple(
            IdMap([(each + turn, host_ids.first, 1)], [(each + turn, host_ids.first, 1)])
            for each in (0, 33, 1000)
        )
    size = USUAL_SIZE if host_ids.everything else COMPACT_SIZE
    alone = [each for each in used if each >= size]
    stride = size + len(alone)
    places = [
        host_ids.first + (turn * STRIDES_IN_ROUND + index) * stride for index in range(STRIDES_IN_ROUND)
    ]

    def ranges(place: int, split: int) -> list[tuple[int, int, int]]:
        """Cover all IDs, those before ``split`` on host IDs after the others."""
        lower = [(0, place + size - split, split)] if split else []
        singles = [(each, place + size + index, 1) for index, each in enumerate(alone)]
        return [*lower, (split, place, size - split), *singles]

    plain, several, uids, gids = (
        ranges(place, split) for place, split in zip(places, (0, 500, 0, 0), strict=False)
    )
    return IdMap(plain, plain), IdMap(several, several), IdMap(uids, gids)
