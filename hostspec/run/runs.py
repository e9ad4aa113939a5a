"""One run: started, waited for, and ended so that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from typing import Any, Self

from hostspec.errors import DriverFailed, InvalidRequest, StoreCorrupt, StoreReadOnly, Unknown
from hostspec.run.cgroups import kill_cgroup, remove_cgroup
from hostspec.run.places import RunLock, RunPlace
from hostspec.run.records import RunRecord, read_record, write_record
from hostspec.run.runtimes import Runtime, RuntimeFailed, exit_code_of
from hostspec.run.starting import Stream, start
from hostspec.store import Container, Store
from hostspec.store.format.timestamps import now

__all__ = [
    "Run",
    "current_record",
    "first_process",
    "keep_record",
    "last_record",
    "output_file",
    "read_pid",
    "runtime_of",
    "take_over",
]

_STATE = "state.json"
_PID = "pid"
_LAST = "hostspec-run.json"
_OUTPUT = "hostspec-output.log"


class Run:
    """A run that this process owns.

    Attributes:
        store: The store in which its container is.
        place: Where its files are.
        record: What is known of it; also on disk.
    """

    def __init__(self, store: Store, place: RunPlace, record: RunRecord, lock: RunLock) -> None:
        """Take a run whose lock is held."""
        self.store = store
        self.place = place
        self.record = record
        self.lock = lock

    @classmethod
    def own(cls, store: Store, place: RunPlace, record: RunRecord) -> Self:
        """Begin a run, of a container that is not there yet."""
        lock = place.acquire(wait=True)
        assert lock is not None  # noqa: S101 - it waited
        os.makedirs(place.directory, 0o700, exist_ok=True)
        run = cls(store, place, record, lock)
        if record.remove:
            place.write_note()
        run.record_as()
        return run

    @property
    def runtime(self) -> Runtime:
        """The OCI runtime, as this container is known to it."""
        return runtime_of(self.place, self.record)

    @property
    def first_process(self) -> int | None:
        """ID of the container's first process as the host sees it, or ``None`` where it never ran."""
        return first_process(self.place)

    def record_as(self, **changes: Any) -> None:  # noqa: ANN401 - fields of RunRecord
        """Change the record, here and on disk."""
        self.record = self.record._replace(**changes)
        write_record(self.place.file(_STATE), self.record)

    def start(
        self,
        streams: tuple[Stream, Stream, Stream] = (None, None, None),
        *,
        signals: Collection[signal.Signals] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the runtime, which ends when the container's process does, or when it runs detached.

        Raises:
            DriverFailed: The root cannot be shown to it.
            OSError: It cannot be started.
        """
        words = self.runtime.run(
            self.place.container,
            self.place.directory,
            self.place.file(_PID),
            detach=self.record.detached,
        )
        program = start(words, entrance_to=self.record.entrance_to, streams=streams, signals=signals)
        if self.record.remove:
            # Loaded while the container starts, so that nobody waits for it when it has ended.
            import_module("hostspec.store.removal")
        return program

    def exit_code(self, status: int) -> int:
        """Return the container's exit code from the runtime's, as shells give it (128 and a signal's number).

        Args:
            status: What the runtime ended with; negative for a signal.

        Raises:
            NotStarted: The container's process never ran.
        """
        if self.first_process is None:
            raise self.runtime.failure(status)
        return exit_code_of(status)

    def kill(self) -> None:
        """Kill the container's first process, if it runs."""
        with suppress(RuntimeFailed):  # it does not
            self.runtime.kill(self.place.container, signal.SIGKILL)

    def finish(self, exit_code: int | None) -> None:
        """End all that belongs to the run, and let it go.

        Args:
            exit_code: What the container ended with, or ``None`` where that is not known.

        Raises:
            DriverFailed: The root cannot be unmounted. The run is still there, for the next one to clean up.
            OSError: A control group cannot be removed; the same.
        """
        try:
            self._take_down()
            if self.record.remove or self.first_process is None:
                with suppress(Unknown):
                    self.store.delete_container(self.place.container)
            else:
                self._keep(exit_code)
            # First, so that nobody who finds only a part takes the container for one that never ran.
            with suppress(FileNotFoundError):
                os.unlink(self.place.file(_STATE))
            self.place.forget()
            self.lock.release(forget=True)
        finally:
            self.lock.release()

    def _take_down(self) -> None:
        if self._has_runtime_state():
            self.runtime.delete(self.place.container)
        if self.record.cgroup:
            kill_cgroup(self.record.cgroup)
            remove_cgroup(self.record.cgroup)
        if self.record.subnet:
            from hostspec.run.network import release  # noqa: PLC0415 - few containers have one

            release(self.place.directory, self.record.subnet)

    def _has_runtime_state(self) -> bool:
        return os.path.isdir(os.path.join(self.runtime.directory, self.place.container))

    def _keep(self, exit_code: int | None) -> None:
        """Unmount a container that stays, and keep with it what became of it."""
        try:
            container = self.store.container(self.place.container)
        except Unknown:
            return  # somebody else has removed it
        if not self.record.ended:  # or whoever was killed after this knew more
            self.record_as(exit_code=exit_code, ended=now())
        if self.record.mounted:
            with suppress(InvalidRequest):  # not mounted any more
                self.store.unmount(container.id)
            self.record_as(mounted=False)
        keep_record(self.store, container, self.record)


def current_record(place: RunPlace) -> RunRecord | None:
    """Return what is known of a run that goes on, or ``None`` where there is none.

    Raises:
        StoreCorrupt: It cannot be understood.
    """
    return read_record(place.file(_STATE))


def first_process(place: RunPlace) -> int | None:
    """Return the first process of a run as the host sees it, or ``None`` where it does not run yet."""
    return read_pid(place.file(_PID))


def runtime_of(place: RunPlace, record: RunRecord) -> Runtime:
    """Return the OCI runtime, as a run's container is known to it."""
    log = place.file("runtime.log")
    return Runtime(record.runtime, place.file("runtime"), log, cgroups=bool(record.cgroup))


def output_file(store: Store, container: Container) -> str:
    """Return the file with what a detached container has written."""
    return os.path.join(store.data_directory(container), _OUTPUT)


def keep_record(store: Store, container: Container, record: RunRecord) -> None:
    """Keep a record with a container, where it outlives the run."""
    write_record(os.path.join(store.data_directory(container), _LAST), record)


def last_record(store: Store, container: Container) -> RunRecord | None:
    """Return how the last run of a container that stayed has ended, or ``None`` where it had none.

    Raises:
        StoreCorrupt: It cannot be understood.
    """
    try:
        directory = store.data_directory(container)
    except (StoreReadOnly, DriverFailed):
        return None  # it was never made, and cannot be made now, on a full disk or one that is read-only
    return read_record(os.path.join(directory, _LAST))


def take_over(store: Store, place: RunPlace, lock: RunLock) -> Run | None:
    """Own a run that another process began; ``None`` where that came to nothing that is known."""
    with suppress(StoreCorrupt):
        record = current_record(place)
        if record is not None:
            return Run(store, place, record, lock)
    return None


def read_pid(path: str) -> int | None:
    """Return the process ID in a file, or ``None`` where there is no such file."""
    with suppress(FileNotFoundError), open(path, encoding="ascii") as file:
        text = file.read()
        return int(text) if text.isdecimal() else None
    return None
