"""Directories that the store keeps for programs, beside what it keeps for itself."""

from __future__ import annotations

import os

from hostspec.idmap import IdRanges
from hostspec.store.format.records import Container, Image
from hostspec.store.graph_root import GraphRoot
from hostspec.store.mounting import shift_of, target_of
from hostspec.store.refusals import refusals

__all__ = ["data_directory", "parent_owners", "run_directory"]

_OWN = "userdata"


def data_directory(root: GraphRoot, record: Image | Container) -> str:
    """Return an object's directory for whatever a program wants to keep with it; made if missing.

    Raises:
        StoreReadOnly: It is missing, and the store was opened for reading.
    """
    return _made(root, root.layout.images if isinstance(record, Image) else root.layout.containers, record.id)


def run_directory(root: GraphRoot, record: Image | Container) -> str:
    """Return an object's directory for what need not survive a reboot; made if missing.

    Raises:
        StoreReadOnly: It is missing, and the store was opened for reading.
    """
    kind = "images" if isinstance(record, Image) else "containers"
    return _made(root, os.path.join(root.layout.run_root, f"{root.layout.driver}-{kind}"), record.id)


def _made(root: GraphRoot, directory: str, identifier: str) -> str:
    path = os.path.join(directory, identifier, _OWN)
    if not os.path.isdir(path):
        root.refuse_if_read_only()
        with refusals("write", path):
            os.makedirs(path, 0o700, exist_ok=True)
    return path


def parent_owners(root: GraphRoot, reference: str) -> tuple[list[int], list[int]] | None:
    """Return who owns the directories above a mount and is not in its ID map.

    Inside a user namespace of that map those directories cannot be entered by their owners' rights.

    Args:
        root: The store.
        reference: To a layer or container.

    Returns:
        UIDs and GIDs, ascending; none where there is no map, and ``None`` where it is not mounted.

    Raises:
        Unknown: There is nothing of that ID or name.
    """
    target = target_of(root, root.layers.read(), reference)
    idmap = target.layer.idmap or shift_of(target.layer, target.container)
    if not idmap:
        return [], []
    count = root.mounts.read().get(target.layer.id)
    if count is None:
        return None
    uids: set[int] = set()
    gids: set[int] = set()
    directory = count.path
    while directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
        with refusals("look at", directory):
            found = os.stat(directory)
        uids.add(found.st_uid)
        gids.add(found.st_gid)
    return _outside(uids, idmap.uids), _outside(gids, idmap.gids)


def _outside(identifiers: set[int], ranges: IdRanges) -> list[int]:
    held = [(each.host_id, each.host_id + each.size) for each in ranges]
    return sorted(
        each for each in identifiers if held and not any(start <= each < end for start, end in held)
    )
