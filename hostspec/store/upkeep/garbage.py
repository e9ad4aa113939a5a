"""Removing what no record names: the leftovers of crashes, of broken programs and of restored backups.

What a living process makes lies in its working area, or is recorded as incomplete while the layer
lock is held, and so is never seen here (store.go, layers.go, images.go, containers.go: ``GarbageCollect``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Container as Recorded
from collections.abc import Iterator

from hostspec.errors import HostspecError, InvalidRequest, StoreCorrupt
from hostspec.store.format.layout import Layout
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import READ_ONLY, Snapshot
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.mounting import unmount_wholly
from hostspec.store.recovery import delete_files_of, recover_under_lock, remove_from_driver
from hostspec.store.refusals import refusals
from hostspec.store.unsettled import Note

__all__ = [
    "collect_garbage",
    "own_damage",
    "records_are_hidden",
    "refuse_hidden_records",
    "remove_unrecorded_layers",
    "unrecorded_layers",
]

_GENERATED_ID = re.compile(r"[0-9a-f]{64}")
_TAR_SPLIT = ".tar-split.gz"
_SIZE_OF_EMPTY_TABLE = len("null\n")


def collect_garbage(root: GraphRoot) -> tuple[str, ...]:
    """Remove what no record names; see :meth:`hostspec.store.Store.collect_garbage`."""
    root.make_room()
    with root.editing() as edits:
        refuse_hidden_records(root, edits)
        recover_under_lock(root, edits)
        _refuse_lost_records(root, edits)
        removed = unrecorded_layers(root, edits)
        refused = remove_unrecorded_layers(root, edits, removed)
        _delete_files(root, edits)
    root.clear_up()
    if refused:
        raise next(iter(refused.values()))
    return tuple(removed)


def refuse_hidden_records(root: GraphRoot, edits: Edits) -> None:
    """Refuse to go on where there are records that are not seen: what they name would be taken for garbage.

    Raises:
        StoreCorrupt: A record cannot be understood, or a table has lost its content.
        InvalidRequest: There are containers of the same store as a transient one, or as one that is not.
    """
    for error in (*own_damage(edits.layers), *own_damage(edits.images), *own_damage(edits.containers)):
        raise StoreCorrupt(error.path, f"{error.reason}; until then nothing is removed as unused")
    for table in _tables(root.layout):
        if _is_empty(table):
            what = "is empty, where a table without records holds null: it has lost what it held"
            way_out = "Restore it from a copy, or delete it to go on without its records"
            raise StoreCorrupt(table, f"{what}. {way_out}; until then nothing is removed as unused")
    if (path := records_are_hidden(root)) is not None:
        way = "not as a transient one" if root.layout.transient else "as a transient one"
        raise InvalidRequest(path, f"holds records that are seen only where the store is opened {way}")


def records_are_hidden(root: GraphRoot) -> str | None:
    """Return the file with the volatile records of this store opened the other way, if there are any."""
    other = root.layout._replace(transient=not root.layout.transient)
    path = os.path.join(other.volatile_layers, "volatile-layers.json")
    return path if _has_records(path) else None


def own_damage(table: Snapshot[Layer] | Snapshot[Image] | Snapshot[Container]) -> Iterator[StoreCorrupt]:
    """Yield what is wrong with records of this store, those of additional stores left out."""
    for place, group in table.damaged.items():
        if place != READ_ONLY:
            yield from (each.error for each in group if each.error is not None)


def unrecorded_layers(root: GraphRoot, edits: Edits) -> list[str]:
    """Return the IDs of the driver's layers that no record names; the caller holds the locks alone."""
    return [each for each in root.driver.list_layers() if each not in edits.layers]


def remove_unrecorded_layers(root: GraphRoot, edits: Edits, layer_ids: list[str]) -> dict[str, HostspecError]:
    """Remove driver layers without a record, with their files; the caller holds the locks alone.

    Args:
        root: The store.
        edits: Its tables.
        layer_ids: Which; those that have a record are left alone.

    Returns:
        Those that the driver refused to remove, each with the reason.
    """
    doomed = [each for each in layer_ids if each not in edits.layers]
    busy = _unmount(root, doomed)
    doomed = [each for each in doomed if each not in busy]
    with root.unsettled.noting(Note("layer", each) for each in doomed):
        refused = remove_from_driver(root, doomed)
        for layer_id in doomed:
            if layer_id not in refused:
                delete_files_of(root, "layer", layer_id)
    return busy | refused


def _refuse_lost_records(root: GraphRoot, edits: Edits) -> None:
    """Refuse to go on where a record names what has no record, and is still there: that is no garbage.

    Raises:
        StoreCorrupt: It is so.
    """
    layout = root.layout
    for user, kind, identifier in _named(edits):
        if kind == "layer":
            lost = identifier not in edits.layers and root.driver.exists(identifier)
            path = os.path.join(layout.layers, "layers.json")
        else:
            lost = identifier not in edits.images and os.path.isdir(os.path.join(layout.images, identifier))
            path = os.path.join(layout.images, "images.json")
        if lost:
            reason = f"has no record of {kind} {identifier}, which is there and which {user} needs. "
            way_out = (
                f"Restore the file from a copy, or delete {user}; until then nothing is removed as unused"
            )
            raise StoreCorrupt(path, reason + way_out)


def _named(edits: Edits) -> Iterator[tuple[str, str, str]]:
    """Yield who needs which object of which kind, as the records of this store say."""
    for layer in edits.layers:
        if layer.parent and not layer.read_only:
            yield f"layer {layer.id}", "layer", layer.parent
    for image in edits.images:
        if image.layer and not image.read_only:
            yield f"image {image.id}", "layer", image.layer
    for container in edits.containers:
        yield f"container {container.id}", "layer", container.layer
        if container.image:
            yield f"container {container.id}", "image", container.image


def _tables(layout: Layout) -> tuple[str, ...]:
    """Return the files with the records that survive a crash."""
    names = ((layout.layers, "layers"), (layout.images, "images"), (layout.containers, "containers"))
    return tuple(os.path.join(directory, f"{name}.json") for directory, name in names)


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return False


def _unmount(root: GraphRoot, layer_ids: list[str]) -> dict[str, HostspecError]:
    """Take down what is mounted of these layers, and return those that are busy, each with the reason."""
    busy: dict[str, HostspecError] = {}
    with root.mounts.writing() as counts:
        for layer_id in layer_ids:
            try:
                unmount_wholly(root, counts, layer_id)
            except HostspecError as error:
                busy[layer_id] = error
    return busy


def _delete_files(root: GraphRoot, edits: Edits) -> None:
    """Delete tar-split files and data directories without a record."""
    layout = root.layout
    for name in _names(layout.layers):
        layer_id = name.removesuffix(_TAR_SPLIT)
        if layer_id != name and not name.startswith(".") and layer_id not in edits.layers:
            delete_files_of(root, "layer", layer_id)
    places: dict[str, tuple[Recorded[str], tuple[str, ...]]] = {
        "layer": (edits.layers, (layout.layers,)),
        "image": (edits.images, (layout.images, layout.older_images)),
        "container": (edits.containers, (layout.containers, layout.running_containers)),
    }
    for kind, (recorded, directories) in places.items():
        for directory in dict.fromkeys(directories):
            for name in _names(directory):
                # As the Go library does: a directory of any other name may be somebody else's.
                if _GENERATED_ID.fullmatch(name) and name not in recorded:
                    delete_files_of(root, kind, name)


def _names(directory: str) -> list[str]:
    with refusals("read", directory):
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []


def _has_records(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(_SIZE_OF_EMPTY_TABLE + 1).strip() not in {b"", b"null", b"[]"}
    except FileNotFoundError:
        return False
