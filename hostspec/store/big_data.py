"""Big data: named items kept as files beside the records, such as an image's manifest and configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from hostspec.errors import InvalidRequest, Unknown
from hostspec.store.format.atomic import replace_file
from hostspec.store.format.layout import big_data_file_name
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.refusals import refusals

__all__ = ["path_of", "pull_up", "read_item", "set_item", "with_items", "write_items"]

Described = TypeVar("Described", Image, Container)


def path_of(root: GraphRoot, record: Layer | Image | Container, key: str) -> str:
    """Return the file in which an item lies.

    Raises:
        InvalidRequest: No file name can be made of the key.
    """
    return os.path.join(_directory(root, record), big_data_file_name(key))


def read_item(root: GraphRoot, record: Layer | Image | Container, key: str) -> bytes:
    """Return an item.

    Raises:
        Unknown: There is no such item.
        InvalidRequest: No file name can be made of the key.
    """
    path = path_of(root, record, key)
    with refusals("read", path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            raise Unknown("big data item", f"{key} of {record.id}") from error


def set_item(root: GraphRoot, record: Layer | Image | Container, key: str, content: bytes) -> None:
    """Store an item and record it.

    Raises:
        Unknown: The object has been removed.
        StoreReadOnly: The store was opened for reading.
        InvalidRequest: No file name can be made of the key.
    """
    if isinstance(record, Layer):
        with root.layers.writing() as layers:
            layer = layers.get(record.id)
            layers.refuse_read_only(layer.id)
            write_items(root, layer, {key: content})
            if key not in layer.big_data:
                layers.put(layer._replace(big_data=(*layer.big_data, key)))
                layers.save()
    elif isinstance(record, Image):
        with root.images.writing() as images:
            image = images.get(record.id)
            images.refuse_read_only(image.id)
            write_items(root, image, {key: content})
            images.put(with_items(image, {key: content}))
            images.save()
    else:
        with root.containers.writing() as containers:
            container = containers.get(record.id)
            write_items(root, container, {key: content})
            containers.put(with_items(container, {key: content}))
            containers.save()


def write_items(root: GraphRoot, record: Layer | Image | Container, items: Mapping[str, bytes]) -> None:
    """Write the files of items; the caller holds the lock, and records them afterwards."""
    for key in items:
        if not key:
            raise InvalidRequest("big data key", "must not be empty")
    for key, content in items.items():
        path = path_of(root, record, key)
        with refusals("write", path):
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            replace_file(path, content)


def pull_up(root: GraphRoot, image: Image) -> Image:
    """Copy the items of an image from an additional store into this one.

    Returns:
        Its record as one of this store; the caller holds the lock, and records it.
    """
    copy = image._replace(read_only=False, elsewhere="")
    write_items(root, copy, {key: read_item(root, image, key) for key in image.big_data})
    return copy


def with_items(record: Described, items: Mapping[str, bytes]) -> Described:
    """Return a record that says of these items that they are there, with sizes and digests.

    An image without a digest gets that of its first manifest.
    """
    from hashlib import sha256  # noqa: PLC0415 - reading a store does not need it

    digests = {key: f"sha256:{sha256(content).hexdigest()}" for key, content in items.items()}
    changed = record._replace(
        big_data=tuple(dict.fromkeys((*record.big_data, *items))),
        big_data_sizes={**record.big_data_sizes, **{key: len(content) for key, content in items.items()}},
        big_data_digests={**record.big_data_digests, **digests},
    )
    if isinstance(changed, Image):
        return changed._replace(digest=next(iter(changed.digests), None))
    return changed


def _directory(root: GraphRoot, record: Layer | Image | Container) -> str:
    layout = root.layout
    if isinstance(record, Layer):
        return os.path.join(record.elsewhere or layout.layers, record.id)
    if isinstance(record, Image):
        return os.path.join(record.elsewhere or layout.images, record.id)
    return os.path.join(layout.containers, record.id)
