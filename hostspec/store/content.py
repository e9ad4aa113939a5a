"""What is in a layer: how it differs from another, and what it occupies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, NamedTuple

from hostspec.store.format.records import Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import with_ancestors
from hostspec.store.mounting import shift_on_disk
from hostspec.store.recovery import read_layers
from hostspec.store.tar_split_files import open_original
from hostspec.values import Change, DiskUsage, LayerRef

__all__ = ["changes", "container_size", "diff", "diff_size", "disk_usage", "image_size"]


class Compared(NamedTuple):
    """Two layers, as the driver is told of them."""

    layer: LayerRef
    parent: LayerRef | None
    record: Layer
    """The record of the first."""


def changes(root: GraphRoot, reference: str, parent: str | None) -> Iterator[Change]:
    """Yield how a layer differs from another; see :meth:`hostspec.store.Store.changes`."""
    compared = _compared(root, reference, parent)
    return root.driver.changes(compared.layer, compared.parent)


@contextmanager
def diff(root: GraphRoot, reference: str, parent: str | None) -> Iterator[BinaryIO]:
    """Give that difference as a tar; see :meth:`hostspec.store.Store.diff`."""
    compared = _compared(root, reference, parent)
    stream = None
    with ExitStack() as held:
        if compared.record.parent == (compared.parent.layer_id if compared.parent else None):
            stream = open_original(root, compared.record, held)
        if stream is None:
            stream = held.enter_context(root.driver.diff(compared.layer, compared.parent))
        yield stream


def diff_size(root: GraphRoot, reference: str, parent: str | None) -> int:
    """Return the bytes of content in it; see :meth:`hostspec.store.Store.diff_size`."""
    compared = _compared(root, reference, parent)
    return root.driver.diff_size(compared.layer, compared.parent)


def disk_usage(root: GraphRoot, reference: str) -> DiskUsage:
    """Return what a layer occupies; see :meth:`hostspec.store.Store.disk_usage`."""
    return root.driver.disk_usage(_layer_id(root, reference))


def image_size(root: GraphRoot, reference: str) -> int:
    """Return the bytes of an image; see :meth:`hostspec.store.Store.image_size`."""
    image = root.images.read().get(reference)
    layers = read_layers(root)
    total = sum(image.big_data_sizes.values())
    for layer_id in with_ancestors(layers, image.top_layers):
        recorded = layers.get(layer_id)
        known = recorded.diff_digest is not None and (recorded.diff_size or 0) >= 0
        total += recorded.diff_size or 0 if known else diff_size(root, layer_id, None)
    return total


def container_size(root: GraphRoot, reference: str) -> int:
    """Return the bytes of a container; see :meth:`hostspec.store.Store.container_size`."""
    container = root.containers.read().get(reference)
    return diff_size(root, container.id, None) + sum(container.big_data_sizes.values())


def _layer_id(root: GraphRoot, reference: str) -> str:
    container = root.containers.read().find(reference)
    return container.layer if container is not None else read_layers(root).get(reference).id


def _compared(root: GraphRoot, reference: str, parent: str | None) -> Compared:
    layers = read_layers(root)
    layer = layers.get(_layer_id(root, reference))
    other = layers.get(_layer_id(root, parent)) if parent else layers.with_id(layer.parent)
    return Compared(_as_on_disk(root, layer), _as_on_disk(root, other) if other is not None else None, layer)


def _as_on_disk(root: GraphRoot, layer: Layer) -> LayerRef:
    """Return a layer as drivers are told of it, with what was written through a container's shifted mount."""
    if layer.idmap:
        return LayerRef(layer.id, layer.idmap)
    owner = next((each for each in root.containers.read() if each.layer == layer.id), None)
    shift = shift_on_disk(root, layer, owner)
    return LayerRef(layer.id, shift, shifted=bool(shift))
