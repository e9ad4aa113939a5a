"""The JSON file of a table: an array of records, of which one that is damaged does not spoil the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from hostspec.errors import InvalidRequest, StoreCorrupt
from hostspec.store.format.atomic import replace_file
from hostspec.store.format.record_json import Json, Malformed
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.refusals import refusals

__all__ = ["Content", "Damage", "FileState", "Format", "TableFile"]

Record = TypeVar("Record", Layer, Image, Container)

FileState = tuple[int, int, int] | None
"""What changes when somebody replaces or edits a file, even without the lock; ``None`` for no file."""


class Format(NamedTuple, Generic[Record]):
    """What a table holds, and how it is written."""

    kind: str
    """``"layer"``, ``"image"`` or ``"container"``."""
    from_json: Callable[[Json], Record]
    """Reads one record."""
    to_json: Callable[[Record], Json]
    """Writes one record."""
    located: Callable[[Record, str, bool], Record] | None = None
    """Says of a record in which directory it is recorded, and whether it is read-only."""


class Damage(NamedTuple):
    """A record that cannot be understood. It is kept as it is, and written back with the others."""

    raw: object
    """What the file has in its place."""
    error: StoreCorrupt
    """What is wrong with it, and the way out."""


class Content(NamedTuple, Generic[Record]):
    """What a file holds."""

    records: Sequence[Record] = ()
    """The records that can be understood, in the order of the file."""
    damaged: tuple[Damage, ...] = ()
    """The others."""


class TableFile(NamedTuple):
    """One of the JSON files of a table."""

    path: str
    """Absolute path."""
    durable: bool = True
    """Whether it is synced; what is volatile is not."""
    elsewhere: str = ""
    """What ``elsewhere`` of its records is."""

    def state(self) -> FileState:
        """Return what tells the file from what it will be after a change."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self, format_: Format[Record], *, read_only: bool = False) -> Content[Record]:
        """Read the file; one that does not exist, or is empty, has no records.

        Raises:
            StoreCorrupt: It is no array of records at all: truncated, overwritten, or of a newer format.
            DriverFailed: The operating system refused.
        """
        with refusals("read", self.path):
            try:
                with open(self.path, "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                return Content()
        rows = self._rows(content)
        records: list[Record] = []
        damaged: list[Damage] = []
        for number, row in enumerate(rows):
            try:
                record = format_.from_json(_as_object(row))
            except Malformed as error:
                # Reading has taken the record apart, so it is taken from the file once more.
                damaged.append(self._damage(format_.kind, self._rows(content)[number], number, error))
                continue
            if format_.located is not None and (read_only or self.elsewhere):
                record = format_.located(record, self.elsewhere, read_only)
            records.append(record)
        return Content(records, tuple(damaged))

    def write(self, kind: str, rows: Sequence[object]) -> None:
        """Replace the content of the file by these records.

        Raises:
            InvalidRequest: One has text that is not Unicode.
            StoreReadOnly: The file may not be written.
            DriverFailed: The operating system refused for another reason.
        """
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{kind} record", "has text that is not Unicode, as JSON needs it"
            ) from error
        with refusals("write", self.path):
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            replace_file(self.path, content, durable=self.durable)

    def _rows(self, content: bytes) -> list[object]:
        if not content:
            return []
        try:
            rows = json.loads(content.decode(errors="replace"))  # as the Go library reads what is no UTF-8
        except (ValueError, RecursionError) as error:
            raise StoreCorrupt(
                self.path,
                f"is no JSON, as it would be after it was truncated or overwritten: {error}; nothing was "
                "changed. Restore it from a copy, or move it away to go on without its records",
            ) from error
        if rows is None:
            return []
        if not isinstance(rows, list):
            raise StoreCorrupt(
                self.path,
                "is no array of records, so a newer version of the format may have written it; nothing was "
                "changed. Use the program that wrote it, or a newer hostspec",
            )
        return rows

    def _damage(self, kind: str, row: object, number: int, error: Malformed) -> Damage:
        identifier = row.get("id") if isinstance(row, dict) else None
        which = f"{kind} {identifier}" if isinstance(identifier, str) and identifier else "one record"
        reason = f"{which} (number {number + 1} in the file) cannot be understood: {error}; "
        way_out = "it is left as it is, and the others are not affected. Correct it, or take it out"
        return Damage(row, StoreCorrupt(self.path, reason + way_out))


def _as_object(row: object) -> Json:
    if not isinstance(row, dict):
        raise Malformed("it is no object")
    return row
