"""Big data: named items kept as files beside the records, such as an image's manifest and configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from hostspec.errors import InvalidRequest, Unknown
from hostspec.store.format.atomic import sync_directory
from hostspec.store.format.layout import big_data_file_name
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.unnamed_files import UnnamedFile, link_as
from hostspec.store.graph_root import GraphRoot
from hostspec.store.refusals import refusals

__all__ = ["NewItems", "path_of", "pull_up", "read_item", "set_item"]

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
    root.refuse_if_read_only()
    layout = root.layout
    if isinstance(record, Layer):
        with NewItems(layout.layers, {key: content}) as items, root.layers.writing() as layers:
            layer = layers.get(record.id)
            layers.refuse_read_only(layer.id)
            items.publish(root, layer)
            if key not in layer.big_data:
                layers.put(layer._replace(big_data=(*layer.big_data, key)))
                layers.save()
    elif isinstance(record, Image):
        with NewItems(layout.images, {key: content}) as items, root.images.writing() as images:
            image = images.get(record.id)
            images.refuse_read_only(image.id)
            items.publish(root, image)
            images.put(items.noted_in(image))
            images.save()
    else:
        with NewItems(layout.containers, {key: content}) as items, root.containers.writing() as containers:
            container = containers.get(record.id)
            items.publish(root, container)
            containers.put(items.noted_in(container))
            containers.save()


class NewItems:
    """Items that are written and digested before the lock is taken under which they get their names.

    A context manager; what has got no name is gone at its end.
    """

    def __init__(self, directory: str, items: Mapping[str, bytes]) -> None:
        """Write the items.

        Args:
            directory: Where the directories of the records are that they may belong to.
            items: Their contents by their keys.

        Raises:
            InvalidRequest: No file name can be made of a key.
            StoreReadOnly: The directory may not be written.
            DriverFailed: The operating system refused.
        """
        from hashlib import sha256  # noqa: PLC0415 - reading a store does not need it

        for key in items:
            if not key:
                raise InvalidRequest("big data key", "must not be empty")
            big_data_file_name(key)
        self._sizes = {key: len(content) for key, content in items.items()}
        self._digests = {key: f"sha256:{sha256(content).hexdigest()}" for key, content in items.items()}
        self._files: dict[str, UnnamedFile] = {}
        with ExitStack() as held, refusals("write", directory):
            for key, content in items.items():
                self._files[key] = held.enter_context(UnnamedFile(directory))
                self._files[key].file.write(content)
                self._files[key].sync()
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def publish(self, root: GraphRoot, record: Layer | Image | Container) -> None:
        """Name the files as those of a record; the caller holds the lock, and records them afterwards.

        Raises:
            StoreReadOnly: The record's directory may not be written.
            DriverFailed: The operating system refused.
        """
        for key, unnamed in self._files.items():
            path = path_of(root, record, key)
            with refusals("write", path):
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                link_as(unnamed.file, path)
                sync_directory(os.path.dirname(path))

    def noted_in(self, record: Described) -> Described:
        """Return a record that says of these items that they are there, with sizes and digests.

        An image without a digest gets that of its first manifest.
        """
        changed = record._replace(
            big_data=tuple(dict.fromkeys((*record.big_data, *self._sizes))),
            big_data_sizes={**record.big_data_sizes, **self._sizes},
            big_data_digests={**record.big_data_digests, **self._digests},
        )
        if isinstance(changed, Image):
            return changed._replace(digest=next(iter(changed.digests), None))
        return changed


def pull_up(root: GraphRoot, image: Image) -> Image:
    """Copy the items of an image from an additional store into this one.

    Returns:
        Its record as one of this store; the caller holds the lock, and records it.
    """
    copy = image._replace(read_only=False, elsewhere="")
    with NewItems(root.layout.images, {key: read_item(root, image, key) for key in image.big_data}) as items:
        items.publish(root, copy)
    return copy


def _directory(root: GraphRoot, record: Layer | Image | Container) -> str:
    layout = root.layout
    if isinstance(record, Layer):
        return os.path.join(record.elsewhere or layout.layers, record.id)
    if isinstance(record, Image):
        return os.path.join(record.elsewhere or layout.images, record.id)
    return os.path.join(layout.containers, record.id)
