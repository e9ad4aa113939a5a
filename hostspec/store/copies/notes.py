"""Notes of what only hostspec knows about mapped copies: how each was made, and when it was last used.

One file for each, ``<driver>-layers/hostspec/copies/<layer ID>``: its content is the strategy, with
``squashed`` behind it where owners outside the map were replaced, and, for an image that lies in an
additional store, where nothing can be recorded, a line with the ID of the layer that it copies; its time
of modification is the last use. A copy that the Go library made has none before it is used here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from hostspec.errors import HostspecError
from hostspec.store.format.atomic import sync_directory
from hostspec.store.graph_root import GraphRoot
from hostspec.store.notices import warn
from hostspec.store.refusals import refusals

__all__ = [
    "CopyNote",
    "forget",
    "is_noted",
    "note_strategy",
    "note_use",
    "noted",
    "read_note",
    "renew_note",
]

_SQUASHED = "squashed"


class CopyNote(NamedTuple):
    """What is noted of one copy."""

    strategy: str | None = None
    """``"template"`` or ``"copy"``, or ``None`` where hostspec did not make it."""
    squashed: bool = False
    """Whether owners outside its map were replaced."""
    template: str = ""
    """ID of the layer that it copies, where its image cannot record it."""
    last_used_ns: int | None = None
    """When a container was last made on it or deleted, in nanoseconds since the epoch, if that is known."""


def note_strategy(
    root: GraphRoot, layer_id: str, strategy: str, template: str = "", *, squashed: bool = False
) -> None:
    """Note how a copy was made and, where its image cannot record it, of what; the time of use is now.

    What others rely on survives a power loss, as the record of the copy does: without it, a copy in which
    owners were replaced would be taken for one that serves everybody.

    Raises:
        StoreReadOnly: It may not be written.
        DriverFailed: The operating system refused for another reason.
    """
    way = f"{strategy} {_SQUASHED}" if squashed else strategy
    path = _path(root, layer_id)
    with refusals("write", path):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(filter(None, (way, template))))
            if squashed or template:
                file.flush()
                os.fsync(file.fileno())
        if squashed or template:
            sync_directory(os.path.dirname(path))


def note_use(root: GraphRoot, layer_id: str) -> None:
    """Note that a copy is used just now; the caller knows that it is there to stay.

    What it is used for is done or under way, so if this fails it is only said.
    """
    try:
        if not renew_note(root, layer_id):
            note_strategy(root, layer_id, "")
    except HostspecError as error:
        warn(f"when mapped copy {layer_id} was last used is not noted: {error}")


def renew_note(root: GraphRoot, layer_id: str) -> bool:
    """Note that somebody is about to use a copy, if there is a note; tell whether there is one.

    Raises:
        StoreReadOnly: It may not be written.
        DriverFailed: The operating system refused for another reason.
    """
    path = _path(root, layer_id)
    with refusals("write", path):
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
    return True


def is_noted(root: GraphRoot, layer_id: str) -> bool:
    """Tell whether a layer is known to have been made as a copy."""
    return os.path.exists(_path(root, layer_id))


def read_note(root: GraphRoot, layer_id: str) -> CopyNote:
    """Return what is noted of a copy."""
    try:
        with open(_path(root, layer_id), encoding="utf-8", errors="surrogateescape") as file:
            way, _, template = file.read().partition("\n")
            last_used = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return CopyNote()
    strategy, *rest = way.split() or [""]
    return CopyNote(strategy or None, _SQUASHED in rest, template, last_used)


def noted(root: GraphRoot) -> list[str]:
    """Return the IDs of all copies of which something is noted."""
    directory = os.path.join(root.layout.own, "copies")
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def forget(root: GraphRoot, layer_ids: Iterable[str]) -> None:
    """Delete the notes about copies that somebody removed who does not know of notes."""
    for layer_id in layer_ids:
        path = _path(root, layer_id)
        with refusals("write", path), suppress(FileNotFoundError):
            os.unlink(path)


def _path(root: GraphRoot, layer_id: str) -> str:
    return os.path.join(root.layout.own, "copies", layer_id)
