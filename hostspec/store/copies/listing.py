"""Mapped copies of images' top layers: which there are, which serves for a map, and who uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hostspec.errors import Unknown
from hostspec.idmap import IdMap
from hostspec.store.copies.notes import forget, noted, read_note
from hostspec.store.format.records import Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.format.timestamps import timestamp
from hostspec.store.graph_root import GraphRoot
from hostspec.store.recovery import read_layers
from hostspec.values import DiskUsage

__all__ = ["MappedCopy", "copies_of", "fitting", "list_copies", "tops_of"]


class MappedCopy(NamedTuple):
    """A mapped copy of an image's top layer."""

    layer: Layer
    """The copy."""
    image: Image
    """The image whose top layer it copies."""
    strategy: str | None
    """``"template"`` or ``"copy"``, or ``None`` where hostspec did not make it."""
    squashed: bool
    """Whether owners outside its map were replaced."""
    usage: DiskUsage
    """What it occupies."""
    last_used: str | None
    """When a container was last made on it or deleted, RFC 3339, or ``None`` where not known."""
    containers: tuple[str, ...]
    """IDs of the containers that stand on it."""


def list_copies(root: GraphRoot) -> list[MappedCopy]:
    """Return all mapped copies, in the order of their images."""
    known = noted(root)  # before the layers are read, so that no note is older than what it is about
    layers = read_layers(root)
    if not root.read_only:
        forget(root, [layer_id for layer_id in known if layer_id not in layers])
    users = _users(root, layers)
    copies = []
    for image in root.images.read():
        for each in copies_of(root, image):
            layer = layers.with_id(each)
            if layer is None:
                continue
            note = read_note(root, layer.id)
            copies.append(
                MappedCopy(
                    layer=layer,
                    image=image,
                    strategy=note.strategy,
                    squashed=note.squashed,
                    # Without where the shared bytes lie: for many copies that is much.
                    usage=root.driver.disk_usage(layer.id)._replace(shared_extents=None),
                    last_used=timestamp(note.last_used_ns) if note.last_used_ns is not None else None,
                    containers=tuple(users.get(layer.id, ())),
                )
            )
    return copies


def copies_of(root: GraphRoot, image: Image) -> tuple[str, ...]:
    """Return the IDs of an image's mapped copies, whether the image records them or we do."""
    if not image.read_only or image.layer is None:
        return image.mapped_layers
    ours = (each for each in noted(root) if read_note(root, each).template == image.layer)
    return (*image.mapped_layers, *ours)


def tops_of(root: GraphRoot, image: Image | None, layers: Snapshot[Layer]) -> list[Layer]:
    """Return the image's top layer and its mapped copies, as far as they are there with their parents.

    Raises:
        Unknown: None of them is.
    """
    if image is None or image.layer is None:
        return []
    tops = (image.layer, *copies_of(root, image))
    found = [layer for each in tops if (layer := layers.with_id(each)) is not None]
    whole = [layer for layer in found if layer.parent is None or layer.parent in layers]
    if not whole:
        raise Unknown("layer", image.layer)
    return whole


def fitting(root: GraphRoot, tops: list[Layer], idmap: IdMap, *, squash: bool) -> Layer | None:
    """Return the first layer with this map in which no owner was squashed, unless that is allowed."""
    same = (layer for layer in tops if layer.idmap == idmap)
    return next((layer for layer in same if squash or not read_note(root, layer.id).squashed), None)


def _users(root: GraphRoot, layers: Snapshot[Layer]) -> Mapping[str | None, list[str]]:
    users: dict[str | None, list[str]] = {}
    for container in root.containers.read():
        layer = layers.with_id(container.layer)
        users.setdefault(layer.parent if layer is not None else None, []).append(container.id)
    return users
