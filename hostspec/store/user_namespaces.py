"""ID maps that no other container has: ``--userns auto``.

As containers/storage does it (userns.go): a range of the host IDs that ``/etc/subuid`` and ``/etc/subgid``
grant to one user, free of every container's map, as large as the image's files and accounts need. Whoever
chooses one holds ``<root>/userns.lock`` until the container is recorded, podman included.

Of the free ranges, one for which the image has a mapped copy already comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap, IdRange
from hostspec.kernel.subordinate_ids import granted_id_map
from hostspec.store.account_files import account_rows
from hostspec.store.configuration.keys import Configuration
from hostspec.store.copies.listing import tops_of
from hostspec.store.format.locking import LockFile
from hostspec.store.format.records import Image
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import with_descent
from hostspec.store.mounting import mount, unmount
from hostspec.store.recovery import read_layers

__all__ = ["automatic_map", "free_start", "highest_id_in_accounts"]

USER = "containers"
"""Whose IDs are used unless ``root-auto-userns-user`` says otherwise."""
LEAST_SIZE, GREATEST_SIZE = 1024, 65536
"""How many IDs a map has, unless ``auto-userns-min-size`` and ``auto-userns-max-size`` say otherwise."""

_NOBODY = 65534
_NOBODYS_NAMES = frozenset({"nobody", "nogroup"})
_LOCK = "userns.lock"

Span = tuple[int, int]
"""Host IDs, from the first to the one after the last."""


class _Settings(NamedTuple):
    user: str
    least: int
    most: int


@contextmanager
def automatic_map(
    root: GraphRoot, image: Image | None, *, configuration: Configuration | None, size: int | None = None
) -> Iterator[IdMap]:
    """Choose a map; the container is to be made within the block, in which nobody else chooses one.

    Args:
        root: The store.
        image: The container's image.
        configuration: What the configuration files say.
        size: How many IDs it shall have; by default as many as the image needs.

    Raises:
        InvalidRequest: The image needs more IDs than a map may have, or there are not so many free ones.
        InvalidIdMap: The user has no IDs.
    """
    settings = _settings(configuration)
    available = granted_id_map(settings.user, settings.user)
    wanted = size or _size_for(root, image, settings)
    with LockFile(os.path.join(root.layout.root, _LOCK)).exclusive():
        maps = [each.idmap for each in root.containers.read()]
        free = (
            _without(_spans(available.uids), (span for each in maps for span in _spans(each.uids))),
            _without(_spans(available.gids), (span for each in maps for span in _spans(each.gids))),
        )
        yield _of_a_copy(root, image, wanted, free) or _lowest(wanted, free, settings.user)


def free_start(free: Sequence[Span], size: int) -> int | None:
    """Return where the lowest span begins that has room for ``size`` IDs, or ``None``."""
    return next((start for start, end in free if end - start >= size), None)


def highest_id_in_accounts(directory: str) -> int:
    """Return the highest ID that a root directory's passwd and group files name, leaving out ``nobody``.

    Args:
        directory: The root directory, whose links lead nowhere outside.
    """
    highest = 0
    # Columns of IDs: UID and GID of a user, GID of a group.
    for path, columns in (("etc/passwd", (2, 3)), ("etc/group", (2,))):
        for row in account_rows(directory, path):
            if row[0] in _NOBODYS_NAMES:
                continue
            numbers = (row[each] for each in columns if each < len(row))
            found = (int(each) for each in numbers if each.isascii() and each.isdecimal())
            highest = max([highest, *(each for each in found if each != _NOBODY)])
    return highest


def _settings(configuration: Configuration | None) -> _Settings:
    least, most = configuration.auto_userns_sizes if configuration else (None, None)
    user = configuration.auto_userns_user if configuration else ""
    return _Settings(user or USER, least or LEAST_SIZE, most or GREATEST_SIZE)


def _size_for(root: GraphRoot, image: Image | None, settings: _Settings) -> int:
    """Return how many IDs the image's files and accounts need, as far as that can be told."""
    size = settings.least
    if image is not None:
        layers = read_layers(root)
        for layer in with_descent(layers, image.layer):
            size = max([size, *(each + 1 for each in (*layer.uids, *layer.gids))])
        with suppress(InvalidRequest), _mounted(root, image) as directory:
            size = max(size, highest_id_in_accounts(directory) + 1)
    if size > settings.most:
        reason = f"needs {size} IDs, and auto-userns-max-size allows {settings.most}; name a map instead"
        raise InvalidRequest("automatic ID map", reason)
    return size


@contextmanager
def _mounted(root: GraphRoot, image: Image) -> Iterator[str]:
    path = mount(root, image.id, read_only=True)
    try:
        yield path
    finally:
        unmount(root, image.id)


def _of_a_copy(
    root: GraphRoot, image: Image | None, size: int, free: tuple[Sequence[Span], Sequence[Span]]
) -> IdMap | None:
    """Return the map of a mapped copy that has the wanted size and whose IDs are free."""
    if image is None or image.layer is None:
        return None
    for layer in tops_of(root, image, read_layers(root)):
        halves = (layer.idmap.uids, layer.idmap.gids)
        ranges = [(half, next(iter(half))) for half in halves if len(half) == 1]
        fits = len(ranges) == len(halves) and all(
            each.container_id == 0 and each.size == size and _contains(spans, each)
            for (_, each), spans in zip(ranges, free, strict=True)
        )
        if fits:
            return layer.idmap
    return None


def _lowest(size: int, free: tuple[Sequence[Span], Sequence[Span]], user: str) -> IdMap:
    uid, gid = (free_start(spans, size) for spans in free)
    if uid is None or gid is None:
        kind = "/etc/subuid" if uid is None else "/etc/subgid"
        reason = (
            f"{kind} gives {user!r} no {size} IDs in a row that are free; remove containers, or add a range"
        )
        raise InvalidRequest("automatic ID map", reason)
    return IdMap([(0, uid, size)], [(0, gid, size)])


def _contains(free: Sequence[Span], wanted: IdRange) -> bool:
    end = wanted.host_id + wanted.size
    return any(start <= wanted.host_id and end <= last for start, last in free)


def _spans(ranges: Iterable[IdRange]) -> list[Span]:
    return [(each.host_id, each.host_id + each.size) for each in ranges]


def _without(available: Iterable[Span], used: Iterable[Span]) -> list[Span]:
    """Return what is left of spans, lowest first."""
    left = sorted(available)
    for start, end in used:
        left = [
            piece
            for low, high in left
            for piece in ((low, min(high, start)), (max(low, end), high))
            if piece[0] < piece[1]
        ]
    return left
