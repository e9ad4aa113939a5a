"""Clearing up after processes that died in the middle of a step, so that nothing half-made is seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hostspec.errors import HostspecError, LayerInUse
from hostspec.store.format.atomic import discard_leftover
from hostspec.store.format.layout import check_id
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import Edit, Snapshot
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.lineage import children_first, with_ancestors
from hostspec.store.unsettled import ITEM, MOUNT, UNMOUNT, Note

__all__ = [
    "delete_files_of",
    "forget_mapped_layer",
    "read_layers",
    "recover",
    "recover_under_lock",
    "remove_from_driver",
]

_ATTEMPTS = 3


def read_layers(root: GraphRoot) -> Snapshot[Layer]:
    """Return the layers, after removing those that somebody left half made.

    A store that was opened for reading shows them as they are.
    """
    for _ in range(_ATTEMPTS):
        with root.layers.reading() as layers:
            half_made = any(each.incomplete and not each.read_only for each in layers)
            if root.read_only or not (root.unsettled or half_made):
                return layers
        recover(root)
    return root.layers.read()


def recover(root: GraphRoot) -> None:
    """Finish or undo what dead processes left, and remove layers that are flagged as incomplete.

    What cannot be removed now is left for the next time.
    """
    with root.editing() as edits:
        recover_under_lock(root, edits)
    root.clear_up()


def recover_under_lock(root: GraphRoot, edits: Edits) -> None:
    """Do what :func:`recover` does; the caller holds all locks and reclaims afterwards."""
    notes = root.unsettled.read()
    doomed = {layer.id for layer in edits.layers if layer.incomplete and not layer.read_only}
    doomed |= {note.id for note in notes if note.kind == "layer" and _is_half_made(note, edits)}
    doomed -= _in_use(edits, doomed)
    _remove_layers(root, edits, doomed)
    left = []
    for note in notes:
        try:
            _settle(root, edits, note)
        except (HostspecError, OSError):
            left.append(note)
    if root.unsettled:
        root.unsettled.keep(left)


def delete_files_of(root: GraphRoot, kind: str, identifier: str) -> None:
    """Delete the files that belong to an object without a record.

    Args:
        root: The store.
        kind: ``"layer"``, ``"image"`` or ``"container"``.
        identifier: The object's ID.

    Raises:
        InvalidRequest: It is none: what it would lead to is something else.
    """
    check_id(kind, identifier)
    layout = root.layout
    if kind == "layer":
        _delete_file(layout.tar_split(identifier))
        discard_leftover(layout.tar_split(identifier))
        _delete_file(os.path.join(layout.own, "copies", identifier))
    directories = {
        "layer": (layout.layers,),
        "image": tuple(dict.fromkeys((layout.images, layout.older_images))),
        "container": (layout.containers, layout.running_containers),
    }
    for directory in directories[kind]:
        path = os.path.join(directory, identifier)
        if os.path.isdir(path):
            from hostspec.kernel.deletion import delete_tree  # noqa: PLC0415 - most objects have none

            delete_tree(path)


def remove_from_driver(
    root: GraphRoot, layer_ids: Iterable[str], records: Mapping[str, Layer] = MappingProxyType({})
) -> dict[str, HostspecError]:
    """Have the driver remove layers, in an order that it accepts.

    Which layers stand on which in the driver is its secret where one was made from a template, so
    those that it refuses to remove are tried again after the others. What one of those stands on stays, too.

    Args:
        root: The store.
        layer_ids: Which, children before parents.
        records: Those of them that have a record, by ID.

    Returns:
        Those that are left, each with the reason.
    """
    left = list(layer_ids)
    refused: dict[str, HostspecError] = {}
    while left:
        refused = {}
        needed: dict[str | None, str] = {}
        for layer_id in left:
            if layer_id in needed:
                refused[layer_id] = LayerInUse(layer_id, [needed[layer_id]], "has children")
            else:
                try:
                    root.driver.remove(layer_id)
                except HostspecError as error:
                    refused[layer_id] = error
            if layer_id in refused and layer_id in records:
                needed[records[layer_id].parent] = layer_id
        if len(refused) == len(left) or not any(isinstance(each, LayerInUse) for each in refused.values()):
            break
        left = list(refused)
    return refused


def forget_mapped_layer(edits: Edits, layer_id: str) -> None:
    """Take a layer out of the lists of mapped copies; the caller saves."""
    for image in list(edits.images):
        if layer_id in image.mapped_layers and not image.read_only:
            rest = tuple(each for each in image.mapped_layers if each != layer_id)
            edits.images.put(image._replace(mapped_layers=rest))


def _is_only_staged(root: GraphRoot, layer_id: str) -> bool:
    """Tell whether this process is making a layer of that ID, and nobody who died had committed one.

    Image layers have the same ID in every process that makes them.
    """
    return root.is_making(layer_id) and not root.driver.exists(layer_id)


def _is_half_made(note: Note, edits: Edits) -> bool:
    """Tell whether a layer is there of which only a part of a step remains."""
    layer = edits.layers.with_id(note.id)
    if layer is None or layer.created != note.created or not note.dependant:
        return False
    if note.dependant_kind == "container":
        container = edits.containers.with_id(note.dependant)
        return container is None or container.layer != layer.id
    image = edits.images.with_id(note.dependant)
    return image is None or layer.id not in with_ancestors(edits.layers, image.top_layers)


def _in_use(edits: Edits, doomed: set[str]) -> set[str]:
    """Return those of the doomed layers on which something else stands."""
    used = {layer for image in edits.images for layer in image.top_layers}
    used |= {container.layer for container in edits.containers}
    standing = (
        layer.id
        for layer in edits.layers
        if layer.id not in doomed or (layer.id in used and not layer.incomplete)
    )
    return with_ancestors(edits.layers, standing) & doomed


def _remove_layers(root: GraphRoot, edits: Edits, doomed: set[str]) -> None:
    """Remove layers whose making or removal was not finished, children first; keep what resists."""
    refused = remove_from_driver(root, children_first(edits.layers, doomed), edits.layers.by_id)
    for layer_id in doomed - refused.keys():
        edits.layers.remove(layer_id)
        forget_mapped_layer(edits, layer_id)
        delete_files_of(root, "layer", layer_id)
    edits.images.save()
    edits.layers.save()


def _settle(root: GraphRoot, edits: Edits, note: Note) -> None:
    """Finish or undo one thing that is noted; layers that are half made are gone already."""
    if note.kind in {MOUNT, UNMOUNT}:
        from hostspec.store.mounting import settle  # noqa: PLC0415 - listing does not need it

        settle(root, note)
        return
    if note.kind == ITEM:
        from hostspec.store.big_data import settle_items  # noqa: PLC0415

        record = _tables(edits)[note.dependant_kind].with_id(note.id)
        if record is not None:
            settle_items(root, record)
        return
    if note.kind == "layer" and note.id not in edits.layers and not _is_only_staged(root, note.id):
        root.driver.remove(note.id)
    if note.id not in _tables(edits)[note.kind]:
        delete_files_of(root, note.kind, note.id)


def _tables(edits: Edits) -> dict[str, Edit[Layer] | Edit[Image] | Edit[Container]]:
    return {"layer": edits.layers, "image": edits.images, "container": edits.containers}


def _delete_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
