"""Removing mapped copies that no container has stood on for a time."""

from __future__ import annotations

from contextlib import suppress
from time import time_ns

from hostspec.errors import HostspecError, LayerInUse
from hostspec.store.copies.listing import copies_of
from hostspec.store.copies.notes import read_note
from hostspec.store.format.records import Layer
from hostspec.store.format.timestamps import nanoseconds
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.lineage import children
from hostspec.store.notices import warn
from hostspec.store.recovery import recover_under_lock
from hostspec.store.removal import remove_layers

__all__ = ["remove_unused_copies", "tidy_up"]

_NANOSECONDS = 1_000_000_000


def remove_unused_copies(root: GraphRoot, unused_for: float, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove copies; see :meth:`hostspec.store.Store.remove_unused_copies`."""
    before = time_ns() - round(unused_for * _NANOSECONDS)
    with root.editing() as edits:
        recover_under_lock(root, edits)
        doomed = [each.id for each in _unused(root, edits) if _last_use(root, each) <= before]
        if dry_run or not doomed:
            return tuple(doomed)
        removed = _remove(root, edits, doomed)
    root.clear_up()
    return removed


def tidy_up(root: GraphRoot) -> None:
    """Remove what has been unused for as long as the store's options say, if they say so.

    What was to be done meanwhile has been done, so if this fails it is only said.
    """
    unused_for = root.policy.remove_mapped_unused_for
    if unused_for is None:
        return
    try:
        remove_unused_copies(root, unused_for)
    except HostspecError as error:
        warn(f"unused mapped copies could not be removed: {error}")


def _unused(root: GraphRoot, edits: Edits) -> list[Layer]:
    """Return the mapped copies on which nothing stands, and which are not mounted."""
    own = {image.layer for image in edits.images} | {container.layer for container in edits.containers}
    copies = dict.fromkeys(each for image in edits.images for each in copies_of(root, image))
    found = [layer for each in copies if (layer := edits.layers.with_id(each)) is not None]
    counts = root.mounts.read()
    return [
        layer
        for layer in found
        if layer.id not in own
        and not layer.read_only
        and not children(edits.layers, layer.id)
        and counts.get(layer.id) is None
    ]


def _last_use(root: GraphRoot, copy: Layer) -> int:
    """Return when a copy was last used, in nanoseconds since the epoch; when it was made, if none knows."""
    noted = read_note(root, copy.id).last_used_ns
    return noted if noted is not None else nanoseconds(copy.created) or 0


def _remove(root: GraphRoot, edits: Edits, doomed: list[str]) -> tuple[str, ...]:
    """Remove copies; one on which another stands in the driver goes after that one, or stays with it."""
    with suppress(LayerInUse):
        remove_layers(root, edits, doomed)
    return tuple(each for each in doomed if each not in edits.layers)
