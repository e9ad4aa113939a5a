"""Methods of the store for whatever has an ID or a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.errors import StoreCorrupt
    from hostspec.store.format.records import Container, Image, Layer
    from hostspec.store.graph_root import GraphRoot

__all__ = ["ObjectMethods"]


class ObjectMethods:
    """What layers, images and containers have in common: names, metadata, data, directories."""

    _root: GraphRoot

    def exists(self, reference: str, kinds: Sequence[str] = ()) -> bool:
        """Tell whether there is something of that ID or name.

        Args:
            reference: ID or name.
            kinds: Which kinds count, of ``"layer"``, ``"image"`` and ``"container"``; all by default.
        """
        from hostspec.store.naming import find_object

        return find_object(self._root, reference, kinds) is not None

    def damage(self, kinds: Sequence[str] = ("layer", "image", "container")) -> Sequence[StoreCorrupt]:
        """Return what is wrong with records that cannot be understood.

        They are left out of everything else, and kept as they are. A table that cannot be read at all
        is among them.

        Args:
            kinds: Of which kinds of records, of ``"layer"``, ``"image"`` and ``"container"``.
        """
        from hostspec.errors import StoreCorrupt

        looks = {
            "layer": lambda: self._root.layers.read().damage,
            "image": lambda: self._root.images.read().damage,
            "container": lambda: self._root.containers.read().damage,
        }
        found: list[StoreCorrupt] = []
        for kind in kinds:
            try:
                found += looks[kind]()
            except StoreCorrupt as error:
                found.append(error)
        return tuple(found)

    def names(self, reference: str) -> Sequence[str]:
        """Return the names of a layer, image or container.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.naming import get_object

        return get_object(self._root, reference).names

    def set_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Give an object these names instead of those that it has; they are taken from whoever has them.

        Returns:
            The names that it has now.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.naming import change_names

        return change_names(self._root, reference, lambda _: names)

    def add_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Give an object more names, taken from whoever has them; see :meth:`set_names`."""
        from hostspec.store.naming import change_names

        return change_names(self._root, reference, lambda present: (*present, *names))

    def remove_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Take names from an object; see :meth:`set_names`."""
        from hostspec.store.naming import change_names

        return change_names(
            self._root, reference, lambda present: [name for name in present if name not in names]
        )

    def metadata(self, reference: str) -> str:
        """Return the text kept with an object.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.naming import get_object

        return get_object(self._root, reference).metadata

    def set_metadata(self, reference: str, metadata: str) -> None:
        """Keep another text with an object.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.naming import set_metadata

        set_metadata(self._root, reference, metadata)

    def big_data(self, record: Layer | Image | Container, key: str) -> bytes:
        """Return a big data item.

        Args:
            record: What it is kept with, as :meth:`layer`, :meth:`image` or :meth:`container` returned it.
            key: Its key; the record's ``big_data`` lists them.

        Raises:
            Unknown: There is no such item.
        """
        from hostspec.store.big_data import read_item

        return read_item(self._root, record, key)

    def set_big_data(self, record: Layer | Image | Container, key: str, content: bytes) -> None:
        """Keep a big data item with an object; an image's ``manifest*`` items give it its digests.

        Raises:
            Unknown: The object has been removed.
            InvalidRequest: No file name can be made of the key.
        """
        from hostspec.store.big_data import set_item

        set_item(self._root, record, key, content)

    def data_directory(self, record: Image | Container) -> str:
        """Return an object's directory for whatever a program wants to keep with it; made if missing."""
        from hostspec.store.directories import data_directory

        return data_directory(self._root, record)

    def run_directory(self, record: Image | Container) -> str:
        """Return an object's directory for what need not survive a reboot; made if missing."""
        from hostspec.store.directories import run_directory

        return run_directory(self._root, record)

    def delete(self, reference: str) -> None:
        """Remove the container (with its layer), image record or layer of that ID or name, unchecked.

        Unlike the other three this does not look whether something stands on it.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.removal import delete_any

        delete_any(self._root, reference)
