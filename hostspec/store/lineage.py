"""Who stands on whom, as the layers' records say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from hostspec.store.format.records import Layer
from hostspec.store.format.tables import Snapshot

if TYPE_CHECKING:
    from hostspec.store.graph_root import GraphRoot

__all__ = ["children", "children_first", "too_deep_for_others", "with_ancestors", "with_descent"]


def with_descent(layers: Snapshot[Layer], top: str | None) -> Iterator[Layer]:
    """Yield a layer, its parent, that one's parent, and so on."""
    seen: set[str] = set()
    layer = layers.with_id(top)
    while layer is not None and layer.id not in seen:
        seen.add(layer.id)  # a damaged table may go round in circles
        yield layer
        layer = layers.with_id(layer.parent)


def with_ancestors(layers: Snapshot[Layer], tops: Iterable[str]) -> set[str]:
    """Return the IDs of these layers and of all that they stand on."""
    found: set[str] = set()
    for top in tops:
        layer = layers.with_id(top)
        while layer is not None and layer.id not in found:
            found.add(layer.id)
            layer = layers.with_id(layer.parent)
    return found


def children(layers: Snapshot[Layer], identifier: str) -> list[str]:
    """Return the IDs of the layers that stand directly on one."""
    return [layer.id for layer in layers if layer.parent == identifier]


def children_first(layers: Snapshot[Layer], identifiers: Collection[str]) -> list[str]:
    """Return the IDs in an order in which no layer comes before one that stands on it."""
    depth = {each: sum(1 for _ in with_descent(layers, each)) for each in identifiers}
    return sorted(identifiers, key=lambda each: depth[each], reverse=True)


def too_deep_for_others(root: GraphRoot, top: str | None) -> str | None:
    """Say why other programs on this store cannot mount what stands on a layer, or return ``None``."""
    depth = sum(1 for _ in with_descent(root.layers.read(), top))
    limit = root.driver.capabilities.shared_depth
    if limit is None or depth <= limit:
        return None
    others = f"other programs on this store, podman 4 among them, mount no more than {limit}"
    return f"layer {top} is the top of {depth} layers, and {others}"
