"""Getting a layer of known content: one that is there already, or else a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hostspec.errors import Duplicate, HostspecError, Unknown
from hostspec.store import Layer, Store

__all__ = ["abandoned_on_error", "layer_id_of", "obtain_layer"]


def layer_id_of(diff_id: str, parent: str | None) -> str:
    """Return the ID that podman, skopeo and CRI-O give a layer of that content on that parent.

    They look for a layer by this ID before they make one, so an image that hostspec brought in is not
    stored a second time by them.
    Source: containers/image, ``storage_dest.go``, where it commits a layer.

    Args:
        diff_id: Digest of its uncompressed tar.
        parent: ID of its parent.
    """
    encoded = diff_id.partition(":")[2]
    return hashlib.sha256(f"{parent}+{encoded}".encode()).hexdigest() if parent else encoded


def obtain_layer(
    store: Store, diff_id: str | None, parent: str | None, make: Callable[[str | None], Layer]
) -> tuple[Layer, bool]:
    """Return a layer of that content on that parent.

    Where threads or processes ask for the same layer at the same time, all get the same one.

    Args:
        store: Where it is to be.
        diff_id: Digest of its uncompressed tar, where that is known before it is made.
        parent: ID of its parent.
        make: Makes the layer; given the ID that it shall have, or ``None`` for a random one. May be
            called twice.

    Returns:
        The layer, and whether it was made for this.
    """
    found = store.find_layer(diff_id, parent) if diff_id else None
    if found is not None:
        return found, False
    wanted = layer_id_of(diff_id, parent) if diff_id else None
    try:
        layer = make(None if wanted and store.has_layer(wanted) else wanted)
    except (Duplicate, Unknown) as error:
        # Somebody else has just made it, or is at it: then whoever comes second throws theirs away.
        # Or somebody died at it, and when that was cleared up, ours went as well.
        if isinstance(error, Unknown) and error.name != wanted:
            raise
        found = store.find_layer(diff_id, parent) if diff_id else None
        if found is not None:
            return found, False
        layer = make(None)
    return _first_of_its_kind(store, layer)


def _first_of_its_kind(store: Store, layer: Layer) -> tuple[Layer, bool]:
    older = store.find_layer(layer.diff_digest or "", layer.parent)
    if older is None or older.id == layer.id:
        return layer, True
    try:
        store.delete_layer(layer.id)
    except HostspecError:
        return layer, False  # somebody has built on it meanwhile, so it is theirs now
    return older, False


@contextmanager
def abandoned_on_error(store: Store) -> Iterator[list[Layer]]:
    """Collect the layers that a block makes, and delete them again, the top one first, if it fails."""
    made: list[Layer] = []
    try:
        yield made
    except BaseException:
        for layer in reversed(made):
            try:
                store.delete_layer(layer.id)
            except HostspecError:
                # Somebody else has built on it meanwhile, so it is theirs now.
                break
        raise
