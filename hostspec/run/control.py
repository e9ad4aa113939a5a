"""What runs, and how it is stopped, removed, or joined by a further process."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from hostspec.errors import InvalidRequest, StoreCorrupt, Unknown
from hostspec.run.places import RunPlace
from hostspec.run.records import RunRecord
from hostspec.run.runs import current_record, first_process, last_record, output_file, runtime_of
from hostspec.run.runtimes import Runtime, RuntimeFailed
from hostspec.store import Container, Store

__all__ = ["ListedRun", "list_runs", "open_output", "refuse_if_running", "remove", "running_place", "stop"]

SECONDS_TO_END = 10.0
"""How long a container may take to end by itself, as with podman."""

_SECONDS_BETWEEN_LOOKS = 0.01
_MOST_SECONDS = 1e9  # what the kernel takes, and longer than anything runs

# Of the signals for real-time use, only the first and the last have names of their own.
_REAL_TIME = re.compile(r"(RTMIN|RTMAX)([+-][0-9]{1,2})")


class ListedRun(NamedTuple):
    """A container that runs or has run."""

    container: Container
    """The container."""
    record: RunRecord
    """How it was run."""
    running: bool
    """Whether it runs now, or is about to."""
    process: int | None = None
    """ID of its first process as the host sees it, or ``None`` where it does not run yet, or no more."""


def list_runs(store: Store, *, ended: bool = False) -> Sequence[ListedRun]:
    """Return the containers that run, in the order in which they were made.

    Args:
        store: The store.
        ended: Also those that have run.
    """
    found = []
    for container in store.containers():
        listed = _listed(store, container)
        if listed is not None and (ended or listed.running):
            found.append(listed)
    return tuple(found)


def stop(store: Store, reference: str, *, seconds: float = SECONDS_TO_END) -> None:
    """End a container by its stop signal, or by SIGKILL where that does not help.

    Returns when it is cleaned up.

    Args:
        store: The store.
        reference: To the container; one that does not run is stopped already.
        seconds: How long it may take to end by itself.

    Raises:
        Unknown: There is no such container.
        InvalidRequest: The image names a stop signal that does not exist.
    """
    place = RunPlace.of(store, store.container(reference).id)
    record = current_record(place)
    if record is not None:
        _end(place, record, _signal(record.stop_signal), seconds)


def remove(store: Store, reference: str, *, force: bool = False) -> None:
    """Remove a container that hostspec ran.

    Args:
        store: The store.
        reference: To the container.
        force: Kill it first, if it runs.

    Raises:
        Unknown: There is no such container.
        InvalidRequest: It runs, or was made by other means.
    """
    container = store.container(reference)
    listed = _listed(store, container)
    if listed is None:
        reason = "was not run by hostspec; hostspec delete-container removes it"
        raise InvalidRequest(f"container {container.id}", reason)
    if listed.running:
        if not force:
            raise InvalidRequest(f"container {container.id}", "is running; stop it first, or force it")
        # Whatever its image says of signals.
        _end(RunPlace.of(store, container.id), listed.record, signal.SIGKILL, seconds=0)
    with suppress(Unknown):  # one that was run with remove goes by itself
        store.delete_container(container.id)


def refuse_if_running(store: Store, reference: str | None = None) -> None:
    """Raise InvalidRequest if a container runs, which nobody could list or stop once it is deleted.

    Args:
        store: The store.
        reference: To the container, if it is to one; by default to any of the store.
    """
    if reference is None:
        containers: Sequence[Container] = store.containers()
    else:
        containers = [store.container(reference)] if store.has_container(reference) else []
    for each in containers:
        if RunPlace.of(store, each.id).is_owned():
            raise InvalidRequest(f"container {each.id}", "is running; 'hostspec rm --force' ends it")


def open_output(store: Store, reference: str) -> BinaryIO:
    """Open what a detached container has written to its standard output and standard error so far.

    Raises:
        Unknown: There is no such container.
    """
    try:
        return open(output_file(store, store.container(reference)), "rb")
    except FileNotFoundError:
        return io.BytesIO()


def running_place(store: Store, reference: str) -> tuple[RunPlace, RunRecord]:
    """Return the run of a container that runs.

    Raises:
        Unknown: There is no such container.
        InvalidRequest: It does not run.
    """
    container = store.container(reference)
    place = RunPlace.of(store, container.id)
    record = current_record(place)
    if record is None or first_process(place) is None or not place.is_owned():
        raise InvalidRequest(f"container {container.id}", "does not run")
    return place, record


def _listed(store: Store, container: Container) -> ListedRun | None:
    place = RunPlace.of(store, container.id)
    with suppress(StoreCorrupt):
        record = current_record(place)
        if record is not None and place.is_owned():
            return ListedRun(container, record, running=True, process=first_process(place))
        record = last_record(store, container)
        if record is not None:
            return ListedRun(container, record, running=False)
    return None


def _end(place: RunPlace, record: RunRecord, number: int, seconds: float) -> None:
    """End a run by a signal, or by SIGKILL where that does not help, and wait until it is cleaned up."""
    process = _process_once_it_runs(place)
    if process is None:
        return
    runtime = runtime_of(place, record)
    with suppress(ProcessLookupError):  # it has ended meanwhile
        fd = os.pidfd_open(process)
        try:
            if not (
                _send(runtime, place, number) and select.select([fd], [], [], min(seconds, _MOST_SECONDS))[0]
            ):
                _send(runtime, place, signal.SIGKILL)
        finally:
            os.close(fd)
    place.wait_until_free()


def _send(runtime: Runtime, place: RunPlace, number: int) -> bool:
    """Send a signal by the runtime, which knows whether a process is the one it started; tell if it did."""
    try:
        runtime.kill(place.container, number)
    except RuntimeFailed:
        return False
    return True


def _process_once_it_runs(place: RunPlace) -> int | None:
    """Return the first process, or ``None`` if it has ended; waits for one that is being started."""
    while place.is_owned():
        process = first_process(place)
        if process is not None:
            return process
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return None


def _signal(name: str) -> int:
    """Return the number of a signal as images name it: ``SIGINT``, ``INT``, ``2`` or ``SIGRTMIN+3``."""
    bare = name.upper().removeprefix("SIG") or "TERM"
    known = signal.Signals.__members__
    if bare.isascii() and bare.isdecimal():
        number = int(bare)
    elif found := _REAL_TIME.fullmatch(bare):
        number = known[f"SIG{found[1]}"] + int(found[2])
    else:
        number = known.get(f"SIG{bare}", 0)
    if number not in signal.valid_signals():
        raise InvalidRequest(f"stop signal {name!r}", "is no signal")
    return number
