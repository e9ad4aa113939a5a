"""What hostspec knows of a container that it runs or has run.

While it runs, that is ``state.json`` in the run's directory. For a container that stays, the same is kept
in the container's own directory of the store, with how it ended, and goes with the container.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from hostspec.errors import StoreCorrupt
from hostspec.run.options import Network
from hostspec.store import Store
from hostspec.store.format.atomic import replace_file

__all__ = ["RunRecord", "StorePlace", "read_record", "write_record"]


class StorePlace(NamedTuple):
    """How a store is opened again, by a process that looks after a run in it."""

    root: str
    run_root: str
    driver: str
    options: tuple[str, ...] = ()
    image_store: str | None = None
    transient: bool = False

    @classmethod
    def of(cls, store: Store) -> StorePlace:
        """Describe an open store."""
        return cls(
            store.root,
            store.run_root,
            store.driver_name,
            tuple(store.options),
            store.image_store,
            store.transient,
        )

    def open(self) -> Store:
        """Open the store."""
        from hostspec.store import open_store  # noqa: PLC0415 - the monitor waits with it until the end

        return open_store(
            root=self.root,
            run_root=self.run_root,
            driver=self.driver,
            options=self.options,
            image_store=self.image_store,
            transient=self.transient,
        )


class RunRecord(NamedTuple):
    """One run."""

    container: str
    """The container's ID."""
    image: str
    """The image, as it was asked for."""
    command: tuple[str, ...]
    """The command with its entry point."""
    runtime: str
    """Absolute path of the OCI runtime."""
    store: StorePlace
    """Its store."""
    started: str
    """When it was asked for, RFC 3339."""
    remove: bool = False
    """Whether the container goes when it has ended."""
    detached: bool = False
    """Whether it runs without whoever asked for it."""
    cgroup: str = ""
    """Path of its control group below each hierarchy, or ``""``."""
    network: Network = "none"
    """What network it has."""
    subnet: str = ""
    """The addresses of its bridge, or ``""``."""
    address: str = ""
    """Its address on hostspec's bridge, or ``""``."""
    stop_signal: str = ""
    """The signal that asks it to end, or ``""`` for SIGTERM."""
    mounted: bool = False
    """Whether its root is mounted for this run, or about to be."""
    entrance_to: str = ""
    """The directory that the runtime finds at :data:`hostspec.run.starting.ENTRANCE`, or ``""``."""
    ended: str = ""
    """When it ended, RFC 3339, or ``""``."""
    exit_code: int | None = None
    """What it ended with, or ``None`` where that is not known."""


def read_record(path: str) -> RunRecord | None:
    """Read a record, or answer ``None`` where there is none.

    Raises:
        StoreCorrupt: It cannot be understood.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            fields = json.load(file)
        known = {key: value for key, value in fields.items() if key in RunRecord._fields}
        record = RunRecord(**known)
        place = StorePlace(*record.store)
        return record._replace(
            command=tuple(record.command), store=place._replace(options=tuple(place.options))
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreCorrupt(path, f"cannot be understood: {error}; remove the container") from error


def write_record(path: str, record: RunRecord) -> None:
    """Write a record; the caller owns the run."""
    fields: Mapping[str, object] = record._asdict()
    content = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogateescape")
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    replace_file(path, content, durable=False)
