"""What only hostspec knows about mapped copies: how each was made, and when it was last used.

One file for each, ``<driver>-layers/hostspec/copies/<layer ID>``: its content is the strategy, with
``squashed`` behind it where owners outside the map were allowed, and, for an image that lies in an
additional store, where nothing can be recorded, a line with the ID of the layer that it copies; its time
of modification is the last use. A copy that the Go library made has none.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from hostspec.store.graph_root import GraphRoot
from hostspec.store.records import Image, Layer
from hostspec.store.recovery import read_layers
from hostspec.store.timestamps import timestamp
from hostspec.values import DiskUsage

__all__ = ["MappedCopy", "copies_of", "is_noted", "is_squashed", "list_copies", "note_strategy", "note_use"]

_SQUASHED = "squashed"


class MappedCopy(NamedTuple):
    """A mapped copy of an image's top layer."""

    layer: Layer
    """The copy."""
    image: Image
    """The image whose top layer it copies."""
    strategy: str | None
    """``"template"`` or ``"copy"``, or ``None`` where hostspec did not make it."""
    usage: DiskUsage
    """What it occupies."""
    last_used: str | None
    """When a container was last made on it, RFC 3339, or ``None`` where not known."""
    containers: tuple[str, ...]
    """IDs of the containers that stand on it."""


def list_copies(root: GraphRoot) -> list[MappedCopy]:
    """Return all mapped copies, in the order of their images."""
    noted = _noted(root)  # before the layers are read, so that no note is older than what it is about
    layers = read_layers(root)
    if not root.read_only:
        _forget(root, [layer_id for layer_id in noted if layer_id not in layers])
    users: dict[str | None, list[str]] = {}
    for container in root.containers.read():
        layer = layers.with_id(container.layer)
        users.setdefault(layer.parent if layer is not None else None, []).append(container.id)
    return [
        MappedCopy(
            layer=layer,
            image=image,
            strategy=_strategy(root, layer.id),
            usage=root.driver.disk_usage(layer.id),
            last_used=_last_used(root, layer.id),
            containers=tuple(users.get(layer.id, ())),
        )
        for image in root.images.read()
        for each in copies_of(root, image)
        if (layer := layers.with_id(each)) is not None
    ]


def copies_of(root: GraphRoot, image: Image) -> tuple[str, ...]:
    """Return the IDs of an image's mapped copies, whether the image records them or we do."""
    if not image.read_only or image.layer is None:
        return image.mapped_layers
    noted = (each for each in sorted(_noted(root)) if _note(root, each)[1:] == [image.layer])
    return (*image.mapped_layers, *noted)


def note_strategy(
    root: GraphRoot, layer_id: str, strategy: str, template: str = "", *, squashed: bool = False
) -> None:
    """Note how a copy was made and, where its image cannot record it, of what; the time of use is now."""
    way = f"{strategy} {_SQUASHED}" if squashed else strategy
    path = _path(root, layer_id)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\n".join(filter(None, (way, template))))


def note_use(root: GraphRoot, layer_id: str) -> None:
    """Note that a container was made on a copy just now."""
    path = _path(root, layer_id)
    try:
        os.utime(path)
    except FileNotFoundError:
        note_strategy(root, layer_id, "")


def is_noted(root: GraphRoot, layer_id: str) -> bool:
    """Tell whether a layer is known to have been made as a copy."""
    return os.path.exists(_path(root, layer_id))


def is_squashed(root: GraphRoot, layer_id: str) -> bool:
    """Tell whether a copy is known to have been made with owners outside the map allowed."""
    return _SQUASHED in _way(root, layer_id)[1:]


def _noted(root: GraphRoot) -> list[str]:
    directory = os.path.join(root.layout.own, "copies")
    return os.listdir(directory) if os.path.isdir(directory) else []


def _forget(root: GraphRoot, layer_ids: list[str]) -> None:
    """Delete the notes about copies that somebody removed who does not know of notes."""
    for layer_id in layer_ids:
        with suppress(FileNotFoundError):
            os.unlink(_path(root, layer_id))


def _strategy(root: GraphRoot, layer_id: str) -> str | None:
    return next(iter(_way(root, layer_id)), None)


def _way(root: GraphRoot, layer_id: str) -> list[str]:
    return next(iter(_note(root, layer_id)), "").split()


def _note(root: GraphRoot, layer_id: str) -> list[str]:
    try:
        with open(_path(root, layer_id), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _last_used(root: GraphRoot, layer_id: str) -> str | None:
    try:
        return timestamp(os.stat(_path(root, layer_id)).st_mtime_ns)
    except FileNotFoundError:
        return None


def _path(root: GraphRoot, layer_id: str) -> str:
    return os.path.join(root.layout.own, "copies", layer_id)
