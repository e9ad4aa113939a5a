"""Letting equal files of images' layers share their blocks."""

from __future__ import annotations

from hostspec.errors import HostspecError
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import with_ancestors
from hostspec.store.recovery import read_layers
from hostspec.values import DedupOptions

__all__ = ["deduplicate"]


def deduplicate(root: GraphRoot, method: str) -> int:
    """Have the driver do it; see :meth:`hostspec.store.Store.deduplicate`.

    No lock is held: what is removed meanwhile is passed over, and what changes is compared by the kernel.
    """
    root.refuse_if_read_only()
    layers = read_layers(root)
    tops = [layer for image in root.images.read() if not image.read_only for layer in image.top_layers]
    used = with_ancestors(layers, tops)
    chosen = [layer.id for layer in layers if layer.id in used and not layer.read_only]
    driver = root.driver
    while True:
        present = [each for each in chosen if driver.exists(each)]
        try:
            return driver.dedup(present, DedupOptions(method))
        except HostspecError:
            if all(map(driver.exists, present)):
                raise
