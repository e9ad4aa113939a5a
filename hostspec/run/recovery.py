"""Cleaning up after processes that died while they looked after a run."""

from __future__ import annotations

import os
from contextlib import suppress

from hostspec.errors import HostspecError, Unknown
from hostspec.run.orphans import kill_orphans
from hostspec.run.places import RunLock, RunPlace, known_runs
from hostspec.run.runs import take_over
from hostspec.store import Store

__all__ = ["clean_up"]


def clean_up(store: Store) -> None:
    """End every run that nobody looks after.

    Its processes, mounts and network go, and the container if it was to be removed.

    What cannot be ended now is left for the next time. Costs nothing where there are no runs.
    """
    if store.read_only:
        return
    for place in known_runs(store):
        try:
            lock = place.acquire(wait=False)
            if lock is not None:
                _end(store, place, lock)
        except (HostspecError, OSError) as error:
            _tell(place.container, error)


def _end(store: Store, place: RunPlace, lock: RunLock) -> None:
    run = take_over(store, place, lock)
    if run is not None:
        kill_orphans(place.directory, run.record.runtime)
        run.finish(None)
        return
    # It died before it wrote anything, or after all was done, or the machine was started again since.
    try:
        if os.path.exists(place.note):
            with suppress(Unknown):
                store.delete_container(place.container)
        place.forget()
        lock.release(forget=True)
    finally:
        lock.release()


def _tell(container: str, error: Exception) -> None:
    import logging  # noqa: PLC0415 - most have nothing to tell

    logging.getLogger(__name__).info("container %s cannot be cleaned up yet: %s", container, error)
