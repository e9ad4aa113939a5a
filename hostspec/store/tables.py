"""A table of records: its JSON files, and the lock under which they are read and written.

Readers get an immutable snapshot, which stays cached until the last-writer token or a file changes
(layers.go, ``layersModified``). Writers hold the lock alone, change an :class:`Edit`, and save it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from hostspec.errors import Duplicate, InvalidRequest, StoreCorrupt, StoreReadOnly, Unknown
from hostspec.store.atomic import discard_leftover, replace_file
from hostspec.store.locking import HeldLock, LockFile
from hostspec.store.record_json import Json, Malformed
from hostspec.store.records import Container, Image, Layer
from hostspec.store.refusals import refusals

__all__ = ["Edit", "Format", "Snapshot", "Table", "TableFile"]

Record = TypeVar("Record", Layer, Image, Container)

_FileState = tuple[int, int, int] | None


class TableFile(NamedTuple):
    """One of the JSON files of a table."""

    path: str
    """Absolute path."""
    durable: bool = True
    """Whether it is synced; what is volatile is not."""


class Format(NamedTuple, Generic[Record]):
    """What a table holds, and how it is written."""

    kind: str
    """``"layer"``, ``"image"`` or ``"container"``."""
    from_json: Callable[[Json], Record]
    """Reads one record."""
    to_json: Callable[[Record], Json]
    """Writes one record."""


class Snapshot(Generic[Record]):
    """The records of a table at one moment, in the order in which they were made.

    Immutable, except where it is an :class:`Edit`.
    """

    def __init__(self, kind: str, records: Mapping[str, Record], places: Mapping[str, int]) -> None:
        """Take records by ID, and the index of the file of those that are not in the first one."""
        self.kind = kind
        self._records: dict[str, Record] = dict(records)
        self._places = dict(places)
        self._by_name: dict[str, str] | None = None

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._records

    @property
    def by_id(self) -> Mapping[str, Record]:
        """The records by ID."""
        return self._records

    @property
    def places(self) -> Mapping[str, int]:
        """Index of the file of each record that is not in the first one."""
        return self._places

    def with_id(self, identifier: str | None) -> Record | None:
        """Return the record of that ID, if there is one."""
        return None if identifier is None else self._records.get(identifier)

    def with_name(self, name: str) -> Record | None:
        """Return the record of that name, if there is one."""
        if self._by_name is None:
            self._by_name = {each: record.id for record in self for each in record.names}
        return self.with_id(self._by_name.get(name))

    def find(self, reference: str) -> Record | None:
        """Return the record with that ID, or that name, or the only one whose ID begins so."""
        found = self._records.get(reference) or self.with_name(reference)
        if found is not None or not reference:
            return found
        candidates = [record for each, record in self._records.items() if each.startswith(reference)]
        return candidates[0] if len(candidates) == 1 else None

    def get(self, reference: str) -> Record:
        """Return the record that :meth:`find` finds.

        Raises:
            Unknown: There is none.
        """
        found = self.find(reference)
        if found is None:
            raise Unknown(self.kind, reference)
        return found

    def refuse_taken(self, identifier: str | None, names: Sequence[str]) -> None:
        """Raise Duplicate if the ID, or one of the names, is in use."""
        if identifier in self._records:
            raise Duplicate("ID", str(identifier))
        for name in names:
            holder = self.with_name(name)
            if holder is not None:
                raise Duplicate("name", name, holder.id)


class Edit(Snapshot[Record]):
    """The records of a table while its lock is held alone.

    Changes are seen here at once, and by others after :meth:`save`; what is not saved is forgotten.
    """

    def __init__(self, table: Table[Record], held: HeldLock, start: Snapshot[Record]) -> None:
        """Start from what the files hold."""
        # mypy puts each record type in turn for the variable, but not for that of the base class.
        super().__init__(start.kind, start.by_id, start.places)  # type: ignore[arg-type]
        self._table: Table[Record] = table
        self._held = held
        self._changed_places: set[int] = set()

    def put(self, record: Record, *, place: int | None = None) -> None:
        """Add a record, or replace the one of the same ID.

        Args:
            record: The record.
            place: Index of the file for a new one; the first by default.
        """
        if record.id not in self._records and place:
            self._places[record.id] = place
        self._records[record.id] = record
        self._changed(record.id)

    def remove(self, identifier: str) -> None:
        """Remove the record of that ID."""
        self._changed(identifier)
        del self._records[identifier]
        self._places.pop(identifier, None)

    def take_names(self, names: Sequence[str], holder: str) -> None:
        """Take names off whoever has them, except ``holder``."""
        for name in names:
            other = self.with_name(name)
            if other is not None and other.id != holder:
                self.put(other._replace(names=tuple(each for each in other.names if each != name)))

    def save(self) -> None:
        """Write what changed, so that everybody sees it.

        Raises:
            StoreReadOnly: The files may not be written.
            DriverFailed: A file could not be written. It is as it was.
            InvalidRequest: A record has text that JSON cannot hold. The files are as they were.
        """
        if self._changed_places:
            self._table.write(self._held, self, self._changed_places)
            self._changed_places = set()

    def place_of(self, identifier: str) -> int:
        """Return the index of the file in which a record is."""
        return self._places.get(identifier, 0)

    def _changed(self, identifier: str) -> None:
        self._changed_places.add(self.place_of(identifier))
        self._by_name = None


class Table(Generic[Record]):
    """The records of one kind in one store; used from several threads."""

    def __init__(self, format_: Format[Record], lock: LockFile, files: Sequence[TableFile]) -> None:
        """Name the files; nothing is read yet.

        Args:
            format_: What the table holds.
            lock: Guards the files.
            files: Where records lie; new ones go to the first.
        """
        self._format: Format[Record] = format_
        self._lock = lock
        self._files = tuple(files)
        self._cached: tuple[object, Snapshot[Record]] | None = None

    def read(self) -> Snapshot[Record]:
        """Return what the files hold now.

        Raises:
            StoreCorrupt: A file cannot be understood.
        """
        with self.reading() as snapshot:
            return snapshot

    @contextmanager
    def reading(self) -> Iterator[Snapshot[Record]]:
        """Hold the lock together with other readers, so that what is seen stays true."""
        with self._lock.shared() as held:
            yield self._load(held)

    @contextmanager
    def writing(self) -> Iterator[Edit[Record]]:
        """Hold the lock alone, to look and then to change.

        Raises:
            StoreReadOnly: This store was opened for reading.
            StoreCorrupt: A file cannot be understood.
        """
        if self._lock.read_only:
            raise StoreReadOnly(os.path.dirname(self._lock.path))
        with self._lock.exclusive() as held:
            for file in self._files:
                discard_leftover(file.path)
            yield Edit(self, held, self._load(held))

    def _load(self, held: HeldLock) -> Snapshot[Record]:
        state = self._state(held.token())
        cached = self._cached
        if cached is not None and cached[0] == state:
            return cached[1]
        records: dict[str, Record] = {}
        places: dict[str, int] = {}
        for place, file in enumerate(self._files):
            for record in _read(file.path, self._format):
                if record.id in records:
                    continue  # the Go library keeps the first, too
                records[record.id] = record
                if place:
                    places[record.id] = place
        snapshot = Snapshot(self._format.kind, _with_unique_names(records), places)
        self._cached = (state, snapshot)
        return snapshot

    def write(self, held: HeldLock, edit: Edit[Record], places: set[int]) -> None:
        """Write the files of these indexes; for :meth:`Edit.save`."""
        token = held.record_write()
        for place in sorted(places):
            file = self._files[place]
            rows = [self._format.to_json(record) for record in edit if edit.place_of(record.id) == place]
            content = _as_json(self._format.kind, rows)
            with refusals("write", file.path):
                os.makedirs(os.path.dirname(file.path), 0o700, exist_ok=True)
                replace_file(file.path, content, durable=file.durable)
        snapshot = Snapshot(self._format.kind, edit.by_id, edit.places)
        self._cached = (self._state(token), snapshot)

    def _state(self, token: bytes) -> tuple[bytes, list[_FileState]]:
        return token, [_file_state(file.path) for file in self._files]


def _file_state(path: str) -> _FileState:
    """Return what changes when somebody replaces or edits a file, even without the lock."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: str, format_: Format[Record]) -> Iterator[Record]:
    with refusals("read", path):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
    if not content:
        return
    try:
        for row in _rows(json.loads(content)):
            yield format_.from_json(row)
    except (Malformed, ValueError) as error:
        way_out = "restore it from a copy, or move it away to start without these records"
        raise StoreCorrupt(path, f"cannot be understood: {error}; {way_out}") from error


def _rows(value: object) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Malformed("it is no array of objects")
    return value


def _with_unique_names(records: dict[str, Record]) -> dict[str, Record]:
    """Leave each name to the last record that claims it, as the Go library does."""
    holders: dict[str, str] = {}
    for identifier, record in records.items():
        for name in record.names:
            before = holders.get(name)
            if before is not None and before != identifier:
                other = records[before]
                records[before] = other._replace(names=tuple(each for each in other.names if each != name))
            holders[name] = identifier
    return records


def _as_json(kind: str, rows: Sequence[Json]) -> bytes:
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{kind} record", "has text that is not Unicode, as JSON needs it") from error
