"""The layers of one home on disk, and which of them stand on which.

::

    <home>/
        layers/ID/
            layer.json      on what the layer stands, and how that is mapped: see Record
            layer.erofs     what it adds, once it is sealed
            diff/  work/    what it adds, while it may be written
            merged/         where its shared mount is
        tempdirs/           the working area

A copy of a template that nobody writes to has neither ``layer.erofs`` nor ``diff``: it stands on its template
and adds nothing but a map.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostspec.directory_layers import DirectoryLayers
from hostspec.errors import StoreCorrupt
from hostspec.idmap import IdMap
from hostspec.working_area import WorkingArea
from hostspec_erofs.ids import CarriedIds

__all__ = ["Layer", "Layers", "Level", "Record"]


class Record(NamedTuple):
    """What ``layer.json`` says."""

    below: str | None = None
    """ID of the layer on which this one stands: its parent, or for a hidden child its template."""
    sealed: bool = False
    """Becomes an image at commit, or is one; and may not be written then."""
    shift: IdMap = IdMap()
    """From the host IDs that the layers below show to those that this layer shows them with."""
    written_under: IdMap | None = None
    """The map of the mount through which ``diff`` was written; its files carry the host IDs of it."""
    ids: CarriedIds | None = None
    """The IDs in the image; ``None`` while there is none."""

    @classmethod
    def parse(cls, text: str) -> Record:
        """Read it.

        Raises:
            ValueError, KeyError, TypeError: It is none.
        """
        found = json.loads(text)
        under, ids = found["written_under"], found["ids"]
        return cls(
            below=found["below"],
            sealed=found["sealed"],
            shift=IdMap(*found["shift"]),
            written_under=None if under is None else IdMap(*under),
            ids=None if ids is None else CarriedIds(*map(frozenset, ids)),
        )

    def text(self) -> str:
        """Return it as it is written."""
        return json.dumps(self._asdict(), default=_plain)


def _plain(value: IdMap | frozenset[int]) -> object:
    return [list(value.uids), list(value.gids)] if isinstance(value, IdMap) else sorted(value)


class Layer(NamedTuple):
    """A layer's directory, and what its record says."""

    layer_id: str
    path: str
    record: Record

    @property
    def image(self) -> str:
        """What it adds, as an EROFS image."""
        return f"{self.path}/layer.erofs"

    @property
    def diff(self) -> str:
        """What it adds, as an overlay's upper directory."""
        return f"{self.path}/diff"

    @property
    def work(self) -> str:
        """The kernel's own directory beside ``diff``."""
        return f"{self.path}/work"

    @property
    def merged(self) -> str:
        """Where its shared mount is."""
        return f"{self.path}/merged"

    @property
    def has_diff(self) -> bool:
        """Whether it may be written."""
        return os.path.isdir(self.diff)

    @property
    def adds_nothing(self) -> bool:
        """Whether it shows what it stands on, with other owners at most."""
        return not self.has_diff and not os.path.exists(self.image)

    def write(self, record: Record) -> Layer:
        """Replace the record; readers see the old one or the new one. Return the layer as it is now."""
        new = f"{self.path}/layer.json.new"
        with open(new, "w", encoding="ascii") as file:
            file.write(record.text())
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, f"{self.path}/layer.json")
        return self._replace(record=record)


class Level(NamedTuple):
    """One layer of a chain, as it is seen from the top."""

    layer: Layer
    shift: IdMap
    """From the host IDs that it carries to those with which it is to be shown."""


class Layers:
    """The layers of one home, and those of read-only homes beside it."""

    def __init__(self, home: str, read_only_homes: Sequence[str]) -> None:
        """Take the homes; none needs to exist."""
        self.area = WorkingArea(home)
        self._own = f"{home}/layers"
        elsewhere = [f"{each}/layers" for each in read_only_homes]
        self.directories = DirectoryLayers(self._own, self.area, elsewhere)

    def find(self, layer_id: str) -> Layer:
        """Return a layer, staged by this process or committed.

        Raises:
            Unknown: There is no such layer.
            StoreCorrupt: Its record cannot be understood.
        """
        path = self.directories.tree(layer_id)
        return Layer(layer_id, path, self._read(path))

    def _read(self, path: str) -> Record:
        place = f"{path}/layer.json"
        try:
            with open(place, encoding="ascii") as file:
                return Record.parse(file.read())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(place, f"is no record of a layer: {error}") from error

    def is_own(self, layer: Layer) -> bool:
        """Tell whether a layer lies in this home and not in a read-only one."""
        return self.area.has(layer.layer_id) or os.path.dirname(layer.path) == self._own

    def below(self, layer: Layer) -> Iterator[Level]:
        """Yield the layers below one, uppermost first, as they are seen through it.

        Raises:
            Unknown: One of them is missing.
            StoreCorrupt: A record cannot be understood.
        """
        shift = IdMap()
        while layer.record.below is not None:
            # What lies deepest is mapped by the layer just above it first.
            shift = layer.record.shift.then(shift)
            layer = self.find(layer.record.below)
            yield Level(layer, shift)

    def chain(self, layer: Layer) -> list[Level]:
        """Return a layer and all below it, uppermost first; as :meth:`below`."""
        return [Level(layer, IdMap()), *self.below(layer)]

    def users(self, layer_id: str) -> list[str]:
        """Return the IDs of the committed layers that stand directly on one, hidden or not."""
        return sorted(each for each in self.directories.names() if self._stands_on(each, layer_id))

    def _stands_on(self, user: str, layer_id: str) -> bool:
        try:
            return self._read(f"{self._own}/{user}").below == layer_id
        except StoreCorrupt:
            return False  # or nothing here could be removed any more
