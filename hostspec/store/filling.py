"""Making a layer: filled unseen and unlocked, then visible in one short step.

A driver that stages layers keeps one that is being filled in its working area, where it belongs to
this process alone, and seals it there, which may take as long. Under the locks we only look whether
everything is still as it was, have the driver rename the layer into place, and write its record. A driver
that cannot stage makes the layer visible at once; then the locks are held all the while, and the record is
flagged as incomplete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hostspec.errors import HostspecError, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.store.format.layout import check_id
from hostspec.store.format.records import INCOMPLETE, Layer
from hostspec.store.format.table_places import place_for_layer
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.recovery import recover, recover_under_lock
from hostspec.store.unsettled import Note
from hostspec.values import CreateOptions, LayerRef, ShiftOptions

__all__ = ["Making", "layer_ref", "make_layer", "new_id"]


class Making(NamedTuple):
    """How one layer is made."""

    draft: Layer
    """Its record, as far as it is known before it is filled."""
    create: Callable[[Layer], IdMap]
    """Makes the layer in the driver, and returns the map that its files carry then."""
    check: Callable[[Edits], Layer | None]
    """Looks, under the locks, whether the layer may still be made; raises if not. Returns a layer that
    somebody else has made meanwhile and that serves as well, or ``None``."""
    options: CreateOptions
    """How it is made."""
    fill: Callable[[Layer], Layer] | None = None
    """Fills it once it has its own map, and returns the finished record."""
    reads: tuple[str, ...] = ()
    """IDs of the layers that filling reads, which nobody keeps from being removed meanwhile."""
    belongs_to: tuple[str, str] = ("", "")
    """Kind and ID of what the layer is nothing without, if it is so."""
    add_files: Callable[[Layer], None] | None = None
    """Puts the files beside its record in their place, just before the layer is recorded."""
    record: Callable[[Edits, Layer], None] | None = None
    """Writes down what it belongs to, once the layer is recorded."""


def new_id() -> str:
    """Return a random ID: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def layer_ref(layer: Layer | None) -> LayerRef | None:
    """Return a layer as drivers are told of it."""
    return None if layer is None else LayerRef(layer.id, layer.idmap)


def make_layer(root: GraphRoot, making: Making) -> Layer:
    """Make a layer that is either wholly there afterwards, or not at all.

    Returns:
        The layer, or the one that somebody else made meanwhile.

    Raises:
        Duplicate: Its ID or name is taken.
        HostspecError: Whatever the driver or the check raised; nothing is left.
    """
    root.refuse_if_read_only()
    check_id("layer", making.draft.id)
    with root.making(making.draft.id):
        if root.driver.capabilities.stages_layers:
            return _fill_then_lock(root, making)
        return _lock_then_fill(root, making)


def _fill_then_lock(root: GraphRoot, making: Making) -> Layer:
    draft = making.draft
    root.layers.read().refuse_taken(draft.id, draft.names)
    with _blaming_removal(root, making):
        # If this fails there is nothing to abandon: a layer of that ID would be somebody else's.
        carried = making.create(draft)
    try:
        with _blaming_removal(root, making):
            layer = _filled(root, making, carried)
        root.driver.seal(layer.id)
        root.sync_data()
        with root.editing() as edits:
            recover_under_lock(root, edits)
            made_meanwhile = _look_again(edits, making)
            if made_meanwhile is None:
                with root.unsettled.noting([_note(making)]):
                    root.driver.commit(layer.id)
                    root.sync_data()  # the rename; what took long was synced before the lock
                    _record(root, edits, making, layer)
                return layer
    except BaseException:
        with suppress(HostspecError):  # the reason why it failed matters more
            _undo(root, draft.id)
        raise
    _abandon(root, draft.id)
    return made_meanwhile


def _lock_then_fill(root: GraphRoot, making: Making) -> Layer:
    draft = making.draft
    with root.editing() as edits:
        recover_under_lock(root, edits)
        made_meanwhile = _look_again(edits, making)
        if made_meanwhile is not None:
            return made_meanwhile
        edits.layers.put(draft._replace(flags={**draft.flags, INCOMPLETE: True}), place=_place(root, making))
        edits.layers.save()
        created = False
        try:
            with root.unsettled.noting([_note(making)]):
                carried = making.create(draft)
                created = True
                layer = _filled(root, making, carried)
                root.sync_data()
                _record(root, edits, making, layer)
        except BaseException:
            if created:
                root.driver.remove(draft.id)
            edits.layers.remove(draft.id)
            edits.layers.save()
            raise
        return layer


def _filled(root: GraphRoot, making: Making, carried: IdMap) -> Layer:
    """Give a layer its own map and its content, and return its finished record."""
    draft, options = making.draft, making.options
    if carried != draft.idmap:
        shift = ShiftOptions(
            squash=options.squash,
            threads=options.threads,
            mount_label=options.mount_label,
            progress=options.progress,
        )
        root.driver.update_idmap(draft.id, carried, draft.idmap, shift)
    return making.fill(draft) if making.fill is not None else draft


@contextmanager
def _blaming_removal(root: GraphRoot, making: Making) -> Iterator[None]:
    """Say so if what the driver stumbled over is that somebody removed a layer that it was reading."""
    try:
        yield
    except HostspecError as error:
        present = root.layers.read()
        for layer_id in making.reads:
            if layer_id not in present:
                raise Unknown("layer", layer_id) from error
        raise


def _look_again(edits: Edits, making: Making) -> Layer | None:
    draft = making.draft
    edits.layers.refuse_taken(draft.id, draft.names)
    if draft.parent is not None:
        _refuse_containers_layer(edits, draft.parent)
    return making.check(edits)


def _refuse_containers_layer(edits: Edits, parent: str) -> None:
    if parent not in edits.layers:
        raise Unknown("layer", parent)
    for container in edits.containers:
        if container.layer == parent:
            raise InvalidRequest(
                f"parent layer {parent}",
                f"belongs to container {container.id}, which writes to it",
            )


def _place(root: GraphRoot, making: Making) -> int:
    """Return in which file a layer is recorded."""
    volatile = root.layout.transient and making.belongs_to[0] == "container"
    return place_for_layer(root.layout, read_only=making.options.read_only, volatile=volatile)


def _record(root: GraphRoot, edits: Edits, making: Making, layer: Layer) -> None:
    if making.add_files is not None:
        making.add_files(layer)
    edits.layers.put(layer, place=_place(root, making))
    edits.layers.save()
    if making.record is not None:
        making.record(edits, layer)


def _note(making: Making) -> Note:
    return Note("layer", making.draft.id, making.draft.created, *making.belongs_to)


def _undo(root: GraphRoot, layer_id: str) -> None:
    """Clear up after a failure: a note says that the layer had already left the working area."""
    if any(note.kind == "layer" and note.id == layer_id for note in root.unsettled.read()):
        recover(root)
    else:
        _abandon(root, layer_id)


def _abandon(root: GraphRoot, layer_id: str) -> None:
    """Remove a layer that is still staged."""
    root.driver.remove(layer_id)
    root.clear_up()
