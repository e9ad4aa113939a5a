"""Big data: named items kept as files beside the records, such as an image's manifest and configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self, TypeVar

from hostspec.errors import InvalidRequest, Unknown
from hostspec.store.format.atomic import TEMPORARY_PREFIX, sync_directory
from hostspec.store.format.layout import big_data_file_name
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import Edit
from hostspec.store.format.unnamed_files import UnnamedFile, link_as
from hostspec.store.graph_root import GraphRoot
from hostspec.store.recovery import recover_under_lock
from hostspec.store.refusals import refusals
from hostspec.store.unsettled import ITEM, Note

__all__ = ["NewItems", "path_of", "pull_up", "read_item", "set_item", "settle_items"]

Record = TypeVar("Record", Layer, Image, Container)

_OFFER = ".new-"
"""Begins the names of what is to take an item's place; no item's own name begins so."""


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

    One that is replaced keeps its place until the record tells of the new one. After a failure, or the death
    of the process, whoever comes next finishes the rest of what the record tells of, and drops what it does
    not.

    Raises:
        Unknown: The object has been removed.
        StoreReadOnly: The store was opened for reading.
        InvalidRequest: No file name can be made of the key.
    """
    root.refuse_if_read_only()
    with NewItems(_home(root, record), {key: content}) as items, root.editing(with_driver=False) as edits:
        recover_under_lock(root, edits)
        if isinstance(record, Layer):
            _set_items(root, edits.layers, record.id, items)
        elif isinstance(record, Image):
            _set_items(root, edits.images, record.id, items)
        else:
            _set_items(root, edits.containers, record.id, items)


def settle_items(root: GraphRoot, record: Layer | Image | Container) -> None:
    """Put what is offered for a record's items in their places, where the record tells of it; drop the rest.

    The caller holds the lock, and nobody is setting items of the record.

    Raises:
        StoreReadOnly: The record's directory may not be written.
        DriverFailed: The operating system refused; repeating it goes on.
    """
    directory = _directory(root, record)
    recorded = {big_data_file_name(key) for key in record.big_data}
    digests = {big_data_file_name(key): digest for key, digest in _digests(record).items()}
    with refusals("write", directory):
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return
        for each in names:
            if each.startswith(TEMPORARY_PREFIX):
                _unlink(os.path.join(directory, each))
        for name in (each.removeprefix(_OFFER) for each in names if each.startswith(_OFFER)):
            offer, path = os.path.join(directory, _OFFER + name), os.path.join(directory, name)
            if name in digests and digests[name] == _digest_of(offer):
                os.rename(offer, path)
            elif name not in recorded:
                _unlink(path)
            _unlink(offer)  # it is still there where both were names of one file
        sync_directory(directory)


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

    def offer(self, root: GraphRoot, record: Layer | Image | Container) -> None:
        """Do what :meth:`publish` does, except that what has a recorded digest stays as it is.

        Beside the name of each item its new content lies under another one, until :func:`settle_items`.

        Raises:
            StoreReadOnly: The record's directory may not be written.
            DriverFailed: The operating system refused.
        """
        directory = _directory(root, record)
        with refusals("write", directory):
            os.makedirs(directory, 0o700, exist_ok=True)
            for key, unnamed in self._files.items():
                name = big_data_file_name(key)
                link_as(unnamed.file, os.path.join(directory, _OFFER + name))
                if key not in _digests(record):
                    link_as(unnamed.file, os.path.join(directory, name))
            sync_directory(directory)

    def noted_in(self, record: Record) -> Record:
        """Return a record that says of these items that they are there, with sizes and digests.

        An image without a digest gets that of its first manifest. Layers' records have only the keys.
        """
        keys = tuple(dict.fromkeys((*record.big_data, *self._sizes)))
        if isinstance(record, Layer):
            return record._replace(big_data=keys)
        changed = record._replace(
            big_data=keys,
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


def _set_items(root: GraphRoot, table: Edit[Record], identifier: str, items: NewItems) -> None:
    record = table.get(identifier)
    table.refuse_read_only(record.id)
    with root.unsettled.noting([Note(ITEM, record.id, dependant_kind=table.kind)], durable=True):
        items.offer(root, record)
        changed = items.noted_in(record)
        if changed != record:
            table.put(changed)
            table.save()
        settle_items(root, changed)


def _digests(record: Layer | Image | Container) -> Mapping[str, str]:
    return {} if isinstance(record, Layer) else record.big_data_digests


def _digest_of(path: str) -> str:
    from hashlib import file_digest  # noqa: PLC0415 - reading a store does not need it

    with open(path, "rb") as file:
        return f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _directory(root: GraphRoot, record: Layer | Image | Container) -> str:
    return os.path.join(_home(root, record), record.id)


def _home(root: GraphRoot, record: Layer | Image | Container) -> str:
    """Return the directory in which that of the record is."""
    layout = root.layout
    if isinstance(record, Layer):
        return record.elsewhere or layout.layers
    if isinstance(record, Image):
        return record.elsewhere or layout.images
    return layout.containers
