"""Which host IDs an ordinary user may use in user namespaces (subuid(5), newuidmap(1))."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from hostspec.errors import InvalidIdMap
from hostspec.idmap import IdMap, IdRange

__all__ = ["own_id_map", "subordinate_id_map"]


def own_id_map() -> IdMap:
    """Return the map that every user may have: root inside is the user, and there is nobody else."""
    return IdMap([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)])


def subordinate_id_map() -> IdMap | None:
    """Return the map that podman gives this user: root inside is the user, then come the subordinate IDs.

    Returns:
        ``None`` where the user has no subordinate IDs, or the programs that map them are not installed.
    """
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return None
    own = own_id_map()
    uids = [*own.uids, *_one_after_another(_granted("/etc/subuid"))]
    gids = [*own.gids, *_one_after_another(_granted("/etc/subgid"))]
    if len(uids) == 1 or len(gids) == 1:
        return None
    try:
        return IdMap(uids, gids)
    except InvalidIdMap:
        return None  # a range that overlaps another, or the user's own ID: newuidmap would refuse it


def _one_after_another(granted: Iterator[tuple[int, int]]) -> Iterator[IdRange]:
    inside = 1
    for start, size in granted:
        yield IdRange(inside, start, size)
        inside += size


def _granted(path: str) -> Iterator[tuple[int, int]]:
    """Yield first ID and size of each range that a file grants the user, by name or number."""
    from pwd import getpwuid  # noqa: PLC0415 - only ordinary users need it

    names = {str(os.getuid())}
    with suppress(KeyError):  # a user without an account still has a number
        names.add(getpwuid(os.getuid()).pw_name)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        name, *numbers = line.split(":")
        if name in names and len(numbers) == 2 and all(each.isdigit() for each in numbers):  # noqa: PLR2004
            yield int(numbers[0]), int(numbers[1])
