"""A store that is full before anything is measured, written straight in its on-disk format."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from hostspec.store.format.record_json import Json, image_to_json, layer_to_json
from hostspec.store.format.records import Image, Layer

__all__ = ["CROWD_DRIVER", "LAYERS_OF_IMAGE", "fill_store"]

CROWD_DRIVER = "vfs"
"""A driver whose layers are plain directories, so that an empty one takes one mkdir."""

LAYERS_OF_IMAGE = 10

CREATED = "2024-01-01T00:00:00Z"

Record = TypeVar("Record", Layer, Image)


def fill_store(graph: str, layers: int) -> None:
    """Make a store of images of ten empty layers each.

    Through the API it would take most of an hour: each layer is recorded durably, among all the others.

    Args:
        graph: Directory for the graph root; need not exist.
        layers: How many layers.
    """
    layer_records, image_records = [], []
    for number in range(layers):
        first = number % LAYERS_OF_IMAGE == 0
        parent = None if first else _identifier("layer", number - 1)
        layer_records.append(Layer(id=_identifier("layer", number), parent=parent, created=CREATED))
        if number % LAYERS_OF_IMAGE == LAYERS_OF_IMAGE - 1:
            image_records.append(_image(number))
    for layer in layer_records:
        os.makedirs(os.path.join(graph, CROWD_DRIVER, "dir", layer.id))
    _write(graph, "layers", layer_records, layer_to_json)
    _write(graph, "images", image_records, image_to_json)


def _image(top: int) -> Image:
    identifier = _identifier("image", top)
    return Image(
        id=identifier,
        names=(f"localhost/image-{top // LAYERS_OF_IMAGE}:latest",),
        layer=_identifier("layer", top),
        created=CREATED,
    )


def _identifier(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def _write(graph: str, kind: str, records: Iterable[Record], to_json: Callable[[Record], Json]) -> None:
    directory = os.path.join(graph, f"{CROWD_DRIVER}-{kind}")
    os.makedirs(directory)
    with open(os.path.join(directory, f"{kind}.json"), "w", encoding="utf-8") as file:
        json.dump([to_json(record) for record in records], file, separators=(",", ":"))
