"""How often each layer's shared mount is in use: ``<run>/<driver>-layers/mountpoints.json``.

Counted for all programs together, under a lock of its own (layers.go, ``layerMountPoint``).
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hostspec.errors import StoreCorrupt, StoreReadOnly
from hostspec.store.format.atomic import discard_leftover, replace_file
from hostspec.store.format.locking import HeldLock, LockFile
from hostspec.store.refusals import refusals

__all__ = ["MountCount", "MountCounts", "MountCountsEdit"]


class MountCount(NamedTuple):
    """One layer that is mounted."""

    layer: str
    """The layer's ID."""
    path: str
    """Where."""
    users: int
    """How many have not unmounted it yet."""


class MountCountsEdit:
    """The counts while their lock is held alone."""

    def __init__(self, path: str, held: HeldLock, counts: dict[str, MountCount]) -> None:
        """Start from what the file holds."""
        self._path = path
        self._held = held
        self._counts = counts

    def get(self, layer: str) -> MountCount | None:
        """Return the mount of a layer, if it has one."""
        return self._counts.get(layer)

    def all(self) -> list[MountCount]:
        """Return every mount."""
        return list(self._counts.values())

    def put(self, count: MountCount) -> None:
        """Record a mount, at once; one without users goes."""
        if count.users > 0:
            self._counts[count.layer] = count
        else:
            self._counts.pop(count.layer, None)
        rows = [{"id": each.layer, "path": each.path, "count": each.users} for each in self._counts.values()]
        # Nothing is mounted after a power loss, so there is no point in syncing.
        content = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        with refusals("write", self._path):
            self._held.record_write()
            replace_file(self._path, content.encode("utf-8", "surrogateescape"), durable=False)


class MountCounts:
    """The mount counts of one store."""

    def __init__(self, directory: str, *, read_only: bool = False) -> None:
        """Name the directory; nothing is read yet."""
        self._path = os.path.join(directory, "mountpoints.json")
        self._lock = LockFile(os.path.join(directory, "mountpoints.lock"), read_only=read_only)

    def read(self) -> dict[str, MountCount]:
        """Return the mounts by layer ID.

        Raises:
            StoreCorrupt: The file cannot be understood.
        """
        with self._lock.shared():
            return _load(self._path)

    @contextmanager
    def writing(self) -> Iterator[MountCountsEdit]:
        """Hold the lock alone, to mount or unmount and count it.

        Raises:
            StoreReadOnly: The store was opened for reading.
            StoreCorrupt: The file cannot be understood.
        """
        if self._lock.read_only:
            raise StoreReadOnly(os.path.dirname(self._path))
        with self._lock.exclusive() as held:
            with refusals("write", self._path):
                discard_leftover(self._path)
            yield MountCountsEdit(self._path, held, _load(self._path))


def _load(path: str) -> dict[str, MountCount]:
    try:
        with open(path, "rb") as file:
            content = file.read()
        rows = json.loads(content.decode("utf-8", "surrogateescape")) if content else []
        counts = [MountCount(str(row["id"]), str(row["path"]), int(row["count"])) for row in rows or ()]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        reason = f"cannot be understood: {error}; unmount what is mounted below the store and delete the file"
        raise StoreCorrupt(path, reason) from error
    return {each.layer: each for each in counts if each.path and each.users > 0}
