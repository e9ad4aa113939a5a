"""``layers --tree``: who stands on whom, drawn as the peer draws it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostspec.store import Container, Image, Layer

__all__ = ["tree_lines"]

BASE = "(base)"


def tree_lines(
    layers: Sequence[Layer], images: Sequence[Image], containers: Sequence[Container]
) -> Iterator[str]:
    """Yield the lines of the tree: layers by ID, below each its names and users, then its children.

    A layer whose parent is missing stands below a heading of its own with that parent's ID.
    """
    children: dict[str, list[Layer]] = {}
    for layer in layers:
        children.setdefault(layer.parent or BASE, []).append(layer)
    known = {layer.id for layer in layers}
    notes = _notes(layers, images, containers)
    for root in sorted(children.keys() - known, key=lambda parent: parent != BASE):
        yield root
        # Depth first, without recursion: chains may be longer than Python's stack is deep.
        pending = _drawn("", children[root])
        while pending:
            before, branch, below, layer = pending.pop()
            yield f"{before}{branch}{layer.id}"
            yield from (f"{below}{note}" for note in notes[layer.id])
            pending += _drawn(below, children.get(layer.id, []))


def _drawn(before: str, siblings: Sequence[Layer]) -> list[tuple[str, str, str, Layer]]:
    """Return siblings, the last one first, with what is drawn before them, and before what is below them."""
    return [
        (before, "└─", f"{before}  ", layer) if index == 0 else (before, "├─", f"{before}│ ", layer)
        for index, layer in enumerate(reversed(siblings))
    ]


def _notes(
    layers: Sequence[Layer], images: Sequence[Image], containers: Sequence[Container]
) -> dict[str, list[str]]:
    notes = {layer.id: [f"name: {name}" for name in layer.names] for layer in layers}
    for image in images:
        for layer_id in image.top_layers:
            own = notes.setdefault(layer_id, [])
            own += [f"image: {image.id}", *(f"image name: {name}" for name in image.names)]
    for container in containers:
        own = notes.setdefault(container.layer, [])
        own += [f"container: {container.id}", *(f"container name: {name}" for name in container.names)]
    return notes
