"""In which files the tables of a store lie: its own, those of its image store, those of additional stores.

As containers/storage 1.6x has them (layers.go, ``newLayerStore``; images.go; containers.go,
``newContainerStore``); version 1.43 knows neither a split image store nor transient containers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hostspec.store.format.layout import Layout
from hostspec.store.format.locking import LockFile, LockFiles
from hostspec.store.format.record_json import (
    container_from_json,
    container_to_json,
    image_from_json,
    image_to_json,
    layer_from_json,
    layer_to_json,
)
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.table_files import Format, TableFile
from hostspec.store.format.tables import Table

__all__ = [
    "IMAGE_STORE",
    "STABLE",
    "VOLATILE_PLACE",
    "containers_of",
    "images_of",
    "layers_of",
    "place_for_layer",
]

STABLE = 0
"""Index of the file for what survives."""
VOLATILE_PLACE = 1
"""Index of the file for what need not survive a crash or, in a transient store, a reboot."""
IMAGE_STORE = 2
"""Index of the file for images' layers, where images have a graph root of their own."""


def _located_layer(layer: Layer, elsewhere: str, read_only: bool) -> Layer:  # noqa: FBT001 - as Format has it
    return layer._replace(elsewhere=elsewhere, read_only=read_only)


def _located_image(image: Image, elsewhere: str, read_only: bool) -> Image:  # noqa: FBT001 - as Format has it
    return image._replace(elsewhere=elsewhere, read_only=read_only)


_LAYERS = Format("layer", layer_from_json, layer_to_json, _located_layer)
_IMAGES = Format("image", image_from_json, image_to_json, _located_image)
_CONTAINERS = Format("container", container_from_json, container_to_json)


def layers_of(layout: Layout, additional: Sequence[Layout], *, read_only: bool) -> Table[Layer]:
    """Return the table of layers; those of additional stores are seen in it.

    Args:
        layout: The store.
        additional: The additional stores, in the order in which they are searched.
        read_only: Whether nothing may be written.
    """
    locks = [_lock(layout.layers, "layers.lock", read_only=read_only)]
    files = [
        TableFile(os.path.join(layout.layers, "layers.json")),
        TableFile(os.path.join(layout.volatile_layers, "volatile-layers.json"), durable=False),
    ]
    if layout.image_root:
        locks.append(_lock(layout.image_layers, "layers.lock", read_only=read_only))
        files.append(TableFile(os.path.join(layout.image_layers, "layers.json")))
    beyond = [
        Table(
            _LAYERS,
            _lock(each.layers, "layers.lock", read_only=True),
            [
                TableFile(os.path.join(each.layers, name), elsewhere=each.layers)
                for name in ("layers.json", "volatile-layers.json")
            ],
            is_beyond=True,
        )
        for each in additional
    ]
    return Table(_LAYERS, LockFiles(locks) if len(locks) > 1 else locks[0], files, beyond)


def images_of(layout: Layout, additional: Sequence[Layout], *, read_only: bool) -> Table[Image]:
    """Return the table of images; see :func:`layers_of`."""
    locks = [_lock(layout.images, "images.lock", read_only=read_only)]
    files = [TableFile(os.path.join(layout.images, "images.json"))]
    if layout.image_root:
        older = layout.older_images
        locks.append(_lock(older, "images.lock", read_only=read_only))
        files.append(TableFile(os.path.join(older, "images.json"), elsewhere=older))
    beyond = [
        Table(
            _IMAGES,
            _lock(each.images, "images.lock", read_only=True),
            [TableFile(os.path.join(each.images, "images.json"), elsewhere=each.images)],
            is_beyond=True,
        )
        for each in additional
    ]
    return Table(_IMAGES, LockFiles(locks) if len(locks) > 1 else locks[0], files, beyond)


def containers_of(layout: Layout, *, read_only: bool) -> Table[Container]:
    """Return the table of containers, which no other store has."""
    return Table(
        _CONTAINERS,
        _lock(layout.volatile_containers, "containers.lock", read_only=read_only),
        [
            TableFile(os.path.join(layout.containers, "containers.json")),
            TableFile(os.path.join(layout.volatile_containers, "volatile-containers.json"), durable=False),
        ],
    )


def place_for_layer(layout: Layout, *, read_only: bool, volatile: bool = False) -> int:
    """Return the index of the file for a new layer.

    Args:
        layout: The store.
        read_only: Whether it is an image's layer.
        volatile: Whether it need not survive a crash.
    """
    if volatile:
        return VOLATILE_PLACE
    return IMAGE_STORE if read_only and layout.image_root else STABLE


def _lock(directory: str, name: str, *, read_only: bool) -> LockFile:
    return LockFile(os.path.join(directory, name), read_only=read_only)
