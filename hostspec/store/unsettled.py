"""Notes of steps that take more than one file, for whoever comes after a killed process.

A step that changes a driver's layers and one or two tables writes, first, a note for each object that
it makes or removes, and deletes them last; so does one that mounts and counts, or that replaces a big data
item. Whoever holds all locks alone sees only notes of the dead. Those of items survive a power loss; the
others are not synced, and losing one loses nothing but disk space.
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hostspec.errors import HostspecError
from hostspec.store.format.atomic import replace_file
from hostspec.store.refusals import refusals

__all__ = ["ITEM", "MOUNT", "UNMOUNT", "Note", "Unsettled"]

MOUNT, UNMOUNT = "mount", "unmount"
"""Kinds of notes that a mount and its count do not agree yet."""

ITEM = "item"
"""Kind of notes that a big data item and its record do not agree yet."""

_SEPARATOR = "\n"


class Note(NamedTuple):
    """One object that was being made or removed."""

    kind: str
    """``"layer"``, ``"image"``, ``"container"``; ``"mount"`` or ``"unmount"``, of a layer; or ``"item"``."""
    id: str
    """Its ID, or that of the object whose item it is."""
    created: str = ""
    """A layer's time of creation, to tell it from a later one of the same ID."""
    dependant_kind: str = ""
    """What a layer that is nothing by itself belongs to, or has the item: ``"image"``, ``"container"``, …"""
    dependant: str = ""
    """ID of what it belongs to."""


class Unsettled:
    """The notes of one store."""

    def __init__(self, directory: str) -> None:
        """Name the directory in which notes lie; it is made with the first one."""
        self._directory = directory

    @contextmanager
    def noting(self, notes: Iterable[Note], *, durable: bool = False) -> Iterator[None]:
        """Note objects while the block makes or removes them.

        The notes stay when the block fails, so that the next one clears up after it.

        Args:
            notes: All of one step. They lie in one file, since a full disk has no block for each.
            durable: Have them survive a power loss.

        Raises:
            StoreReadOnly: They may not be written.
            DriverFailed: The operating system refused for another reason. Nothing is noted.
        """
        path = os.path.join(self._directory, f"step-{os.urandom(8).hex()}")
        if texts := [*map(_text_of, notes)]:
            self._write(path, "".join(texts), durable=durable)
        yield
        if texts:
            _delete(path)

    def write(self, note: Note) -> Note:
        """Note one object, and return the note.

        Raises:
            StoreReadOnly: It may not be written.
            DriverFailed: The operating system refused for another reason.
        """
        self._write(self._path(note), _text_of(note), durable=False)
        return note

    def __bool__(self) -> bool:
        """Tell whether there are any notes."""
        return bool(self._names())

    def has(self, note: Note) -> bool:
        """Tell whether an object is noted in that way, by :meth:`write`."""
        return os.path.exists(self._path(note))

    def read(self) -> list[Note]:
        """Return all notes; those that a dying process did not finish writing were of no consequence."""
        return [note for name in self._names() for note in self._read(name)]

    def forget(self, note: Note) -> None:
        """Delete a note of :meth:`write` whose object is settled.

        Raises:
            StoreReadOnly: It may not be deleted.
            DriverFailed: The operating system refused for another reason.
        """
        if self.has(note):
            _delete(self._path(note))

    def keep(self, notes: Collection[Note]) -> None:
        """Delete all notes except these, and what is no complete note.

        Where there is no room to write the rest of a step's notes, all of them stay.
        """
        for name in self._names():
            noted = self._read(name)
            left = [note for note in noted if note in notes]
            path = os.path.join(self._directory, name)
            if not left:
                _delete(path)
            elif len(left) < len(noted):
                with suppress(HostspecError):
                    self._write(path, "".join(map(_text_of, left)), durable=True)

    def _path(self, note: Note) -> str:
        return os.path.join(self._directory, f"{note.kind}-{note.id}")

    def _names(self) -> list[str]:
        with refusals("read", self._directory):
            try:
                return sorted(os.listdir(self._directory))
            except FileNotFoundError:
                return []

    def _read(self, name: str) -> list[Note]:
        path = os.path.join(self._directory, name)
        with refusals("read", path):
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    *fields, rest = file.read().split(_SEPARATOR)
            except FileNotFoundError:
                return []  # settled meanwhile, by whoever wrote it
        size = len(Note._fields)
        if rest or len(fields) % size:
            return []
        return [Note(*fields[start : start + size]) for start in range(0, len(fields), size)]

    def _write(self, path: str, text: str, *, durable: bool) -> None:
        content = text.encode("utf-8", "surrogateescape")
        with refusals("write", path):
            try:
                replace_file(path, content, durable=durable)
            except FileNotFoundError:
                os.makedirs(self._directory, 0o700, exist_ok=True)
                replace_file(path, content, durable=durable)


def _text_of(note: Note) -> str:
    return _SEPARATOR.join((*note, ""))


def _delete(path: str) -> None:
    with refusals("write", path), suppress(FileNotFoundError):
        os.unlink(path)
