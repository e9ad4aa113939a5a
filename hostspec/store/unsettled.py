"""Notes of steps that take more than one file, for whoever comes after a killed process.

A step that changes a driver's layers and one or two tables writes, first, a note for each object that
it makes or removes, and deletes it last; so does one that mounts and counts. Notes are written by
holders of the layer lock, so whoever holds that lock alone sees only notes of the dead. They
survive a process, not a power loss: they are not synced, and losing one loses nothing but disk space.
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hostspec.store.refusals import refusals

__all__ = ["MOUNT", "UNMOUNT", "Note", "Unsettled"]

MOUNT, UNMOUNT = "mount", "unmount"
"""Kinds of notes that a mount and its count do not agree yet."""

_SEPARATOR = "\n"


class Note(NamedTuple):
    """One object that was being made or removed."""

    kind: str
    """``"layer"``, ``"image"`` or ``"container"``; or ``"mount"`` or ``"unmount"``, of a layer."""
    id: str
    """Its ID."""
    created: str = ""
    """A layer's time of creation, to tell it from a later one of the same ID."""
    dependant_kind: str = ""
    """For a layer that is nothing by itself, what it belongs to: ``"image"`` or ``"container"``."""
    dependant: str = ""
    """ID of what it belongs to."""


class Unsettled:
    """The notes of one store."""

    def __init__(self, directory: str) -> None:
        """Name the directory in which notes lie; it is made with the first one."""
        self._directory = directory

    @contextmanager
    def noting(self, notes: Iterable[Note]) -> Iterator[None]:
        """Note objects while the block makes or removes them.

        The notes stay when the block fails, so that the next one clears up after it.
        """
        written = [self.write(note) for note in notes]
        yield
        self.forget(written)

    def write(self, note: Note) -> Note:
        """Note one object, and return the note.

        Raises:
            StoreReadOnly: It may not be written.
            DriverFailed: The operating system refused for another reason.
        """
        path = self._path(note)
        text = _SEPARATOR.join((*note, ""))
        with refusals("write", path):
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                os.makedirs(self._directory, 0o700, exist_ok=True)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, text.encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)
        return note

    def __bool__(self) -> bool:
        """Tell whether there are any notes."""
        try:
            return bool(os.listdir(self._directory))
        except FileNotFoundError:
            return False

    def has(self, note: Note) -> bool:
        """Tell whether an object is noted in that way."""
        return os.path.exists(self._path(note))

    def read(self) -> list[Note]:
        """Return all notes; those that a dying process did not finish writing were of no consequence."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        return [note for note in map(self._read, names) if note is not None]

    def forget(self, notes: Iterable[Note]) -> None:
        """Delete notes whose objects are settled."""
        for note in notes:
            with suppress(FileNotFoundError):
                os.unlink(self._path(note))

    def forget_unfinished(self) -> None:
        """Delete what is no complete note."""
        for name in os.listdir(self._directory):
            if self._read(name) is None:
                os.unlink(os.path.join(self._directory, name))

    def _path(self, note: Note) -> str:
        return os.path.join(self._directory, f"{note.kind}-{note.id}")

    def _read(self, name: str) -> Note | None:
        path = os.path.join(self._directory, name)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                fields = file.read().split(_SEPARATOR)
        except FileNotFoundError:
            return None  # settled meanwhile, by whoever wrote it
        return Note(*fields[:-1]) if len(fields) == len(Note._fields) + 1 else None
