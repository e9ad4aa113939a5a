"""Which host IDs an ordinary user may use in user namespaces (subuid(5), newuidmap(1))."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from hostspec.errors import InvalidIdMap
from hostspec.idmap import IdMap, IdRange

__all__ = ["granted_id_map", "own_id_map", "subordinate_id_map"]


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
    uids = [*own.uids, *_one_after_another(_granted("/etc/subuid", _own_names()))]
    gids = [*own.gids, *_one_after_another(_granted("/etc/subgid", _own_names()))]
    if len(uids) == 1 or len(gids) == 1:
        return None
    try:
        return IdMap(uids, gids)
    except InvalidIdMap:
        return None  # a range that overlaps another, or the user's own ID: newuidmap would refuse it


def granted_id_map(user: str, group: str) -> IdMap:
    """Return the map onto the subordinate IDs of a user and a group, from container ID 0 on.

    Raises:
        InvalidIdMap: One of them has none, or two ranges overlap.
    """
    halves = []
    for path, name in (("/etc/subuid", user), ("/etc/subgid", group)):
        ranges = list(_one_after_another(_granted(path, {name}), inside=0))
        if not ranges:
            reason = f"has no range; a line such as {name}:100000:65536 is one"
            raise InvalidIdMap(f"{path} of {name!r}", reason)
        halves.append(ranges)
    return IdMap(*halves)


def _one_after_another(granted: Iterator[tuple[int, int]], inside: int = 1) -> Iterator[IdRange]:
    for start, size in granted:
        yield IdRange(inside, start, size)
        inside += size


def _own_names() -> set[str]:
    """Return the name and the number of the user."""
    from pwd import getpwuid  # noqa: PLC0415 - only ordinary users need it

    names = {str(os.getuid())}
    with suppress(KeyError):  # a user without an account still has a number
        names.add(getpwuid(os.getuid()).pw_name)
    return names


def _granted(path: str, names: set[str]) -> Iterator[tuple[int, int]]:
    """Yield first ID and size of each range that a file grants who has one of these names."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        name, *numbers = line.split(":")
        if name in names and len(numbers) == 2 and all(each.isdigit() for each in numbers):  # noqa: PLR2004
            yield int(numbers[0]), int(numbers[1])
