"""Removing layers, images and containers, in the right order and never what is in use.

Records go first, in one step for each table; then the driver renames the layers away, children before
parents and mapped copies before the layer that they copy; what takes long is deleted without a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostspec.errors import InUse, LayerInUse
from hostspec.store.copies.listing import copies_of
from hostspec.store.copies.notes import note_use
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.lineage import children, children_first, with_ancestors, with_descent
from hostspec.store.mounting import unmount_wholly
from hostspec.store.recovery import (
    delete_files_of,
    forget_mapped_layer,
    recover_under_lock,
    remove_from_driver,
)
from hostspec.store.unsettled import Note

__all__ = [
    "delete_any",
    "delete_container",
    "delete_image",
    "delete_layer",
    "layers_to_remove",
    "remove_layers",
    "wipe",
]


def delete_layer(root: GraphRoot, reference: str) -> None:
    """Remove a layer that nothing stands on; see :meth:`hostspec.store.Store.delete_layer`."""
    root.make_room()
    with root.editing() as edits:
        recover_under_lock(root, edits)
        layer = edits.layers.get(reference)
        edits.layers.refuse_read_only(layer.id)
        _refuse_used_layer(edits, layer.id)
        _remove(root, edits, [layer.id], [], [Note("layer", layer.id)])
    root.clear_up()


def delete_container(root: GraphRoot, reference: str) -> None:
    """Remove a container and its layer; see :meth:`hostspec.store.Store.delete_container`."""
    root.make_room()
    with root.editing() as edits:
        recover_under_lock(root, edits)
        container = edits.containers.get(reference)
        _refuse_used_layer(edits, container.layer, by_containers=False)
        _note_end_of_use(root, edits, container)
        _remove_container(root, edits, container)
    root.clear_up()


def delete_image(root: GraphRoot, reference: str, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove an image and the layers only it needs; see :meth:`hostspec.store.Store.delete_image`."""
    root.make_room()
    with root.editing() as edits:
        recover_under_lock(root, edits)
        image = edits.images.get(reference)
        edits.images.refuse_read_only(image.id)
        users = [container.id for container in edits.containers if container.image == image.id]
        if users:
            raise InUse("image", image.id, users, "is in use by container")
        doomed = layers_to_remove(edits, image)
        if dry_run:
            return doomed
        notes = [Note("layer", each, _created(edits, each), "image", image.id) for each in doomed]
        _remove(root, edits, doomed, [image], notes)
    root.clear_up()
    return doomed


def delete_any(root: GraphRoot, reference: str) -> None:
    """Remove what has that ID or name; see :meth:`hostspec.store.Store.delete`."""
    root.make_room()
    with root.editing() as edits:
        recover_under_lock(root, edits)
        container = edits.containers.find(reference)
        image = edits.images.find_as_given(reference)
        if image is None and edits.layers.find(reference) is None:
            image = edits.images.find(reference)
        if container is not None:
            _remove_container(root, edits, container)
        elif image is not None:
            edits.images.refuse_read_only(image.id)
            _remove(root, edits, [], [image], [])
        else:
            layer = edits.layers.get(reference)
            edits.layers.refuse_read_only(layer.id)
            _remove(root, edits, [layer.id], [], [Note("layer", layer.id)])
    root.clear_up()


def wipe(root: GraphRoot) -> None:
    """Remove everything; see :meth:`hostspec.store.Store.wipe`."""
    from hostspec.store.upkeep.garbage import unrecorded_layers  # noqa: PLC0415 - no other removal needs it

    root.make_room()
    with root.editing() as edits:
        recover_under_lock(root, edits)
        recorded = children_first(edits.layers, [each.id for each in edits.layers if not each.read_only])
        doomed = [*unrecorded_layers(root, edits), *recorded]  # either may stand on the other
        owners = [*edits.containers, *(each for each in edits.images if not each.read_only)]
        _remove(root, edits, doomed, owners, _notes_of_everything(edits, doomed))
    root.clear_up()


def remove_layers(root: GraphRoot, edits: Edits, layer_ids: Sequence[str]) -> None:
    """Remove layers on which nothing stands, as the caller made sure, who holds the locks and reclaims.

    Raises:
        LayerInUse: In the driver, something stands on one; that one is recorded again.
        DriverFailed: A mount is busy, and nothing was removed; or the operating system refused.
    """
    _remove(root, edits, layer_ids, [], [Note("layer", each) for each in layer_ids])


def layers_to_remove(edits: Edits, image: Image) -> tuple[str, ...]:
    """Return the layers that only this image needs, each before the one that it stands on or copies.

    Those are its mapped copies, its top layer, and parents down to the first that something else needs.
    """
    others = {layer for each in edits.images if each.id != image.id for layer in each.top_layers}
    others |= {container.layer for container in edits.containers}
    mine = [each for each in image.mapped_layers if each in edits.layers]
    doomed = [each for each in mine if each not in others and not edits.layers.is_read_only(each)]
    doomed = [each for each in doomed if not children(edits.layers, each)]
    # The driver may have built any of the copies on the top layer, so one that stays keeps that one, too.
    if set(image.mapped_layers) & {layer.id for layer in edits.layers} == set(doomed):
        for layer in with_descent(edits.layers, image.layer):
            if layer.read_only or layer.id in others or set(children(edits.layers, layer.id)) - set(doomed):
                break
            doomed.append(layer.id)
    return tuple(doomed)


def _notes_of_everything(edits: Edits, doomed: Sequence[str]) -> list[Note]:
    """Return notes by which the layers go even if nobody comes further than to remove what they belong to."""
    owners: dict[str, tuple[str, str]] = {}
    for image in edits.images:
        if not image.read_only:
            owners |= dict.fromkeys(with_ancestors(edits.layers, image.top_layers), ("image", image.id))
    owners |= {container.layer: ("container", container.id) for container in edits.containers}
    created = {layer.id: layer.created for layer in edits.layers}
    return [Note("layer", each, created.get(each, ""), *owners.get(each, ())) for each in doomed]


def _refuse_used_layer(edits: Edits, layer_id: str, *, by_containers: bool = True) -> None:
    if standing := children(edits.layers, layer_id):
        raise LayerInUse(layer_id, standing, "has children")
    if images := [image.id for image in edits.images if image.layer == layer_id]:
        raise LayerInUse(layer_id, images, "is in use by image")
    containers = [each.id for each in edits.containers if each.layer == layer_id]
    if containers and by_containers:
        raise LayerInUse(layer_id, containers, "is in use by container")


def _note_end_of_use(root: GraphRoot, edits: Edits, container: Container) -> None:
    """Note that a mapped copy was in use until now, if the container stands on one."""
    image = edits.images.with_id(container.image)
    layer = edits.layers.with_id(container.layer)
    if image is not None and layer is not None and layer.parent in copies_of(root, image):
        note_use(root, layer.parent)


def _remove_container(root: GraphRoot, edits: Edits, container: Container) -> None:
    doomed = [container.layer] if container.layer in edits.layers else []
    notes = [Note("layer", each, _created(edits, each), "container", container.id) for each in doomed]
    _remove(root, edits, doomed, [container], notes)


def _remove(
    root: GraphRoot,
    edits: Edits,
    doomed: Sequence[str],
    owners: Sequence[Image | Container],
    notes: Sequence[Note],
) -> None:
    """Remove layers and what they belong to.

    Args:
        root: The store.
        edits: Its tables.
        doomed: Layers, each before the one that it stands on or copies; some may have no record.
        owners: Images and containers that go with them.
        notes: For whoever comes after us if we die: one for each layer.
    """
    with root.mounts.writing() as counts:
        for layer_id in doomed:
            unmount_wholly(root, counts, layer_id)
    recorded = [layer for each in doomed if (layer := edits.layers.with_id(each)) is not None]
    was = _Records(
        {each.id: (each, edits.layers.place_of(each.id)) for each in recorded},
        [(each, edits.images.place_of(each.id)) for each in owners if isinstance(each, Image)],
        [(each, edits.containers.place_of(each.id)) for each in owners if isinstance(each, Container)],
        [
            each
            for each in edits.images
            if not set(each.mapped_layers).isdisjoint(doomed) and each not in owners
        ],
    )
    all_notes = [*(Note(_kind_of(each), each.id) for each in owners), *notes]
    with root.unsettled.noting(all_notes):
        for owner in owners:
            (edits.images if isinstance(owner, Image) else edits.containers).remove(owner.id)
        for layer in recorded:
            edits.layers.remove(layer.id)
            forget_mapped_layer(edits, layer.id)
        _save(edits)
        _remove_from_driver(root, edits, doomed, was)
        for note in all_notes:
            delete_files_of(root, note.kind, note.id)


class _Records(NamedTuple):
    """Records as they were before a removal, with the index of the file of those that it removes."""

    layers: dict[str, tuple[Layer, int]]
    images: list[tuple[Image, int]]
    containers: list[tuple[Container, int]]
    copied: list[Image]
    """Other images, of which a mapped copy is among the layers."""


def _remove_from_driver(root: GraphRoot, edits: Edits, doomed: Sequence[str], was: _Records) -> None:
    """Have the driver remove layers; those that it refuses to remove are recorded again, each where it was.

    So are the images and containers whose own layer is still there; if nothing has been removed,
    everything is as it was.
    """
    refused = remove_from_driver(root, doomed, {each: layer for each, (layer, _) in was.layers.items()})
    if not refused:
        return
    for layer_id in reversed(refused):
        if layer_id in was.layers:
            layer, place = was.layers[layer_id]
            edits.layers.put(layer, place=place)
    removed = set(doomed) - refused.keys()
    for image, place in was.images:
        if image.layer in edits.layers or not removed:
            copies = tuple(each for each in image.mapped_layers if each not in removed)
            edits.images.put(image._replace(mapped_layers=copies), place=place)
    for image in was.copied:
        if not image.read_only:
            copies = tuple(each for each in image.mapped_layers if each not in removed)
            edits.images.put(image._replace(mapped_layers=copies))
    for container, place in was.containers:
        if container.layer in edits.layers or not removed:
            edits.containers.put(container, place=place)
    edits.layers.save()
    edits.images.save()
    edits.containers.save()
    raise next(iter(refused.values()))


def _save(edits: Edits) -> None:
    """Write the tables, each before those that it refers to, so that nothing ever lacks what it needs."""
    edits.containers.save()
    edits.images.save()
    edits.layers.save()


def _kind_of(owner: Image | Container) -> str:
    return "image" if isinstance(owner, Image) else "container"


def _created(edits: Edits, layer_id: str) -> str:
    return edits.layers.get(layer_id).created
