"""A table of records: its JSON files, and the lock under which they are read and written.

Readers get an immutable snapshot, which stays cached until the last-writer token or a file changes
(layers.go, ``layersModified``). Writers hold the lock alone, change an :class:`Edit`, and save it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from hostspec.errors import Duplicate, StoreCorrupt, StoreReadOnly, Unknown
from hostspec.store.format.atomic import discard_leftover
from hostspec.store.format.locking import HeldLock, HeldLocks, LockFile, LockFiles
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.table_files import Content, Damage, Format, TableFile
from hostspec.store.refusals import refusals

__all__ = ["READ_ONLY", "Edit", "Snapshot", "Table"]

Record = TypeVar("Record", Layer, Image, Container)

_BEFORE_ID = "sha256:"
"""What clients that know images by their configurations' digests write before an ID."""
_NOTHING: Mapping[int, tuple[Damage, ...]] = {}

READ_ONLY = -1
"""Place of what lies in an additional store, and is never written."""


class Snapshot(Generic[Record]):
    """The records of a table at one moment, in the order in which they were made.

    Immutable, except where it is an :class:`Edit`.
    """

    def __init__(
        self,
        kind: str,
        records: Mapping[str, Record],
        places: Mapping[str, int],
        damaged: Mapping[int, tuple[Damage, ...]] = _NOTHING,
    ) -> None:
        """Take records by ID, the index of the file of those that are not in the first one, and damage."""
        self.kind = kind
        self.damaged = damaged
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

    @property
    def damage(self) -> tuple[StoreCorrupt, ...]:
        """What is wrong with the records that could not be understood, and are left out."""
        return tuple(
            each.error for group in self.damaged.values() for each in group if each.error is not None
        )

    def is_read_only(self, identifier: str) -> bool:
        """Tell whether a record lies in an additional store."""
        return self._places.get(identifier) == READ_ONLY

    def refuse_read_only(self, identifier: str) -> None:
        """Raise StoreReadOnly if the record lies in an additional store."""
        if self.is_read_only(identifier):
            where = getattr(self._records[identifier], "elsewhere", "")
            reason = f"{self.kind} {identifier} lies in an additional image store, which is never written"
            raise StoreReadOnly(where, reason)

    def with_id(self, identifier: str | None) -> Record | None:
        """Return the record of that ID, if there is one."""
        return None if identifier is None else self._records.get(identifier)

    def with_name(self, name: str) -> Record | None:
        """Return the record of that name, if there is one."""
        if self._by_name is None:
            self._by_name = {}
            for record in self:
                for each in record.names:
                    if self.is_read_only(record.id):
                        self._by_name.setdefault(each, record.id)
                    else:
                        self._by_name[each] = record.id  # this store's own count more
        return self.with_id(self._by_name.get(name))

    def find(self, reference: str) -> Record | None:
        """Return the record that :meth:`find_as_given` finds, or else the image whose name is meant."""
        return self.find_as_given(reference) or self._image_meant_by(reference)

    def find_as_given(self, reference: str) -> Record | None:
        """Return the record with that ID, or that name, or the only one whose ID begins so."""
        found = self._records.get(reference) or self.with_name(reference)
        if found is not None or not reference:
            return found
        candidates = [record for each, record in self._records.items() if each.startswith(reference)]
        return candidates[0] if len(candidates) == 1 else None

    def _image_meant_by(self, reference: str) -> Record | None:
        if self.kind != "image" or not reference:
            return None
        from hostspec.store.references import full_names  # noqa: PLC0415 - only where nothing else is found

        named = next(filter(None, map(self.with_name, full_names(reference))), None)
        return named or self._image_by_digest(reference)

    def _image_by_digest(self, reference: str) -> Record | None:
        """Return the image that ``sha256:ID`` or ``NAME@DIGEST`` means, as podman reads them."""
        from hostspec.store.references import repositories  # noqa: PLC0415 - only where nothing else is found

        name, at, digest = reference.rpartition("@")
        if not at:
            identifier = reference.removeprefix(_BEFORE_ID)
            found = self.find_as_given(identifier) if identifier != reference else None
            return found if found is not None and found.id.startswith(identifier) else None
        wanted = repositories([name])
        for each in self:
            digests = getattr(each, "digests", ())  # which images have
            if digest in digests and wanted & repositories(each.names):
                return each
        return None

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
        """Raise Duplicate if the ID, or one of the names, is in use in this store."""
        if identifier in self._records:
            raise Duplicate("ID", str(identifier))
        for name in names:
            holder = self.with_name(name)
            if holder is not None and not self.is_read_only(holder.id):
                raise Duplicate("name", name, holder.id)


class Edit(Snapshot[Record]):
    """The records of a table while its lock is held alone.

    Changes are seen here at once, and by others after :meth:`save`; what is not saved is forgotten.
    """

    def __init__(self, table: Table[Record], held: HeldLock | HeldLocks, start: Snapshot[Record]) -> None:
        """Start from what the files hold."""
        # mypy puts each record type in turn for the variable, but not for that of the base class.
        super().__init__(start.kind, start.by_id, start.places, start.damaged)  # type: ignore[arg-type]
        self._table: Table[Record] = table
        self._held = held
        self._changed_places: set[int] = set()

    def put(self, record: Record, *, place: int | None = None) -> None:
        """Add a record, or replace the one of the same ID.

        Args:
            record: The record.
            place: Index of the file for a new one, the first by default; for one of an additional store,
                that of the file that is to have a copy of it.

        Raises:
            StoreReadOnly: The one of the same ID lies in an additional store, and no place is given.
        """
        if record.id not in self._records or (place is not None and self.is_read_only(record.id)):
            self._places.pop(record.id, None)
            if place:
                self._places[record.id] = place
        self.refuse_read_only(record.id)
        self._records[record.id] = record
        self._changed(record.id)

    def remove(self, identifier: str) -> None:
        """Remove the record of that ID.

        Raises:
            StoreReadOnly: It lies in an additional store.
        """
        self.refuse_read_only(identifier)
        self._changed(identifier)
        del self._records[identifier]
        self._places.pop(identifier, None)

    def take_names(self, names: Sequence[str], holder: str) -> None:
        """Take names off whoever has them, except ``holder``."""
        for name in names:
            other = self.with_name(name)
            if other is not None and other.id != holder and not self.is_read_only(other.id):
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

    def __init__(
        self,
        format_: Format[Record],
        lock: LockFile | LockFiles,
        files: Sequence[TableFile],
        beyond: Sequence[Table[Record]] = (),
        *,
        is_beyond: bool = False,
    ) -> None:
        """Name the files; nothing is read yet.

        Args:
            format_: What the table holds.
            lock: Guards the files.
            files: Where records lie; new ones go to the first.
            beyond: The same table of additional stores, whose records are seen here, too.
            is_beyond: Whether this is the table of an additional store.
        """
        self._format: Format[Record] = format_
        self._lock = lock
        self._files = tuple(files)
        self._beyond: tuple[Table[Record], ...] = tuple(beyond)
        self._is_beyond = is_beyond
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
            StoreReadOnly: This store was opened for reading, or may not be written.
            StoreCorrupt: A file cannot be understood.
        """
        if self._lock.read_only:
            raise StoreReadOnly(os.path.dirname(self._lock.path))
        with self._lock.exclusive() as held:
            for file in self._files:
                with refusals("write", file.path):
                    discard_leftover(file.path)
            yield Edit(self, held, self._load(held))

    def write(self, held: HeldLock | HeldLocks, edit: Edit[Record], places: set[int]) -> None:
        """Write the files of these indexes; for :meth:`Edit.save`."""
        with refusals("write", self._lock.path):
            token = held.record_write()
        for place in sorted(places):
            rows: list[object] = [
                self._format.to_json(record) for record in edit if edit.place_of(record.id) == place
            ]
            rows += (each.raw for each in edit.damaged.get(place, ()))
            self._files[place].write(self._format.kind, rows)
        if self._beyond:
            self._cached = None  # what was removed here may be seen there
            return
        snapshot = Snapshot(self._format.kind, edit.by_id, edit.places, edit.damaged)
        self._cached = (self._state(token), snapshot)

    def _load(self, held: HeldLock | HeldLocks) -> Snapshot[Record]:
        state = self._state(held.token())
        cached = self._cached
        if cached is not None and cached[0] == state:
            return cached[1]
        records: dict[str, Record] = {}
        places: dict[str, int] = {}
        damaged: dict[int, tuple[Damage, ...]] = {}
        for place, file in enumerate(self._files):
            unseen = self._load_file(place, file, records, places)
            if unseen:
                damaged[place] = unseen
        records = _with_unique_names(records)
        for other in self._beyond:
            snapshot = other.read()
            damaged[READ_ONLY] = damaged.get(READ_ONLY, ()) + tuple(
                each for group in snapshot.damaged.values() for each in group
            )
            for record in snapshot:
                if record.id not in records:
                    records[record.id] = record
                    places[record.id] = READ_ONLY
        loaded = Snapshot(self._format.kind, records, places, damaged)
        self._cached = (state, loaded)
        return loaded

    def _load_file(
        self, place: int, file: TableFile, records: dict[str, Record], places: dict[str, int]
    ) -> tuple[Damage, ...]:
        """Add the records of one file, and return what of it is not seen."""
        content: Content[Record] = file.read(self._format, read_only=self._is_beyond)
        unseen = [*content.damaged]
        for record in content.records:
            earlier = records.get(record.id)
            if earlier is not None and places.get(record.id, 0) != place:
                unseen.append(Damage(self._format.to_json(record), None))
                continue
            if earlier is not None:
                unseen.append(file.repeated(self._format.kind, record.id, self._format.to_json(earlier)))
            records[record.id] = record
            if place:
                places[record.id] = place
        return tuple(unseen)

    def _state(self, token: bytes) -> object:
        return token, [file.state() for file in self._files], [other.read() for other in self._beyond]


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
