"""Which layers stand on which: an index over the ``lower`` files of a home.

Hidden children of templates are in it like any other, since it is made from what is on disk.
The files are read once: a layer's ``lower`` never changes, and whether layers came or went is seen
from the home directory's time of modification.
"""

from __future__ import annotations

import os
import time
from threading import Lock

from hostspec_overlay.layout import LayerDirectory, layer_ids

__all__ = ["Dependents"]

_CLOCK_STEP_NS = 50_000_000
"""Twice within this, a directory may change without its time of modification telling; in nanoseconds."""


class Dependents:
    """The index of one home; threads may share it."""

    def __init__(self, home: str) -> None:
        """Take a home; nothing is read before the first question."""
        self._home = home
        self._lock = Lock()
        self._lowers: dict[tuple[str, int], tuple[str, ...]] = {}
        self._as_of: int | None = None

    def of(self, entry: str) -> list[str]:
        """Return the IDs of the layers whose chain contains a short name (``l/NAME``), direct children first.

        The caller holds the layer lock, or must not rely on the answer.

        Raises:
            OSError: The home cannot be read.
        """
        with self._lock:
            self._refresh()
            standing = [
                (lowers.index(entry), name[0]) for name, lowers in self._lowers.items() if entry in lowers
            ]
        return [layer_id for _, layer_id in sorted(standing)]

    def removed(self, layer_id: str) -> None:
        """Note that this process has just removed a layer, under the layer lock."""
        with self._lock:
            if self._as_of is None:
                return
            self._lowers = {name: lowers for name, lowers in self._lowers.items() if name[0] != layer_id}
            self._as_of = _modified(self._home)

    def _refresh(self) -> None:
        modified = _modified(self._home)
        if self._as_of is not None and modified == self._as_of:
            return
        known = self._lowers
        self._lowers = {
            name: known[name] if name in known else self._read(name[0]) for name in layer_ids(self._home)
        }
        settled = modified is None or time.time_ns() - modified > _CLOCK_STEP_NS
        self._as_of = modified if settled else None

    def _read(self, layer_id: str) -> tuple[str, ...]:
        return LayerDirectory(self._home, layer_id).lower_entries()


def _modified(home: str) -> int | None:
    """Return when entries of the home last came or went, in nanoseconds since the epoch."""
    try:
        return os.stat(home).st_mtime_ns
    except FileNotFoundError:
        return None
