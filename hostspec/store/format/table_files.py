"""The JSON file of a table: an array of records, of which one that is damaged does not spoil the others."""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import json
import os
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Generic, NamedTuple, TypeVar

from hostspec.errors import InvalidRequest, StoreCorrupt
from hostspec.store.format.atomic import replace_file
from hostspec.store.format.record_json import Json, Malformed
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.refusals import refusals

__all__ = ["Content", "Damage", "FileState", "Format", "TableFile"]

Record = TypeVar("Record", Layer, Image, Container)

_HALVES_BEGIN = (rb"\ud", rb"\uD")
"""How halves of characters begin where they are escaped; some whole characters do so, too."""

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
    """A record that is not seen. It is kept as it is, and written back with the others."""

    raw: object
    """What the file has in its place."""
    error: StoreCorrupt | None
    """What is wrong with it, and the way out; ``None`` where only another file of the table hides it."""


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

    def repeated(self, kind: str, identifier: str, record: Json) -> Damage:
        """Return a record of this file that is not seen, since a later one here has the same ID."""
        reason = f"{kind} {identifier} is recorded more than once; the last of its records counts, "
        way_out = "as for the Go library, and the others are left as they are. Take them out"
        return Damage(record, StoreCorrupt(self.path, reason + way_out))

    def _rows(self, content: bytes) -> list[object]:
        if not content:
            return []
        try:
            rows = json.loads(
                content.decode(errors="replace"),  # as the Go library reads what is no UTF-8
                parse_float=_finite,
                parse_constant=_finite,
            )
        except (ValueError, RecursionError) as error:
            raise StoreCorrupt(
                self.path,
                f"is no JSON, as it would be after it was truncated or overwritten: {error}; nothing was "
                "changed. Restore it from a copy, or move it away to go on without its records",
            ) from error
        if rows is None:
            return []
        if b"\\" in content and any(each in content for each in _HALVES_BEGIN):
            rows = _as_unicode(rows)
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


def _finite(number: str) -> float:
    """Read a number; JSON has no infinite ones, and neither library could read them when written back."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is no number")
    return value


def _as_unicode(value: object) -> object:
    """Put a replacement character for each half of a pair that stands alone, as the Go library does.

    Such text could never be written back.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_as_unicode(each) for each in value]
    if isinstance(value, dict):
        return {_as_unicode(name): _as_unicode(each) for name, each in value.items()}
    return value
