"""Where runs lie, and who owns each.

A run is a container while hostspec runs it, and until all that belonged to it is gone. It has a directory
``<run root>/hostspec-run/<container ID>`` and, beside it, a lock file that the process which looks after
the run holds locked. A lock that is free means: that process is dead, and whoever comes next cleans up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from hostspec.kernel import filelocks
from hostspec.kernel.deletion import delete_tree
from hostspec.store import Store

__all__ = ["CONFIG", "RunLock", "RunPlace", "is_owned", "known_runs", "runs_directory"]

CONFIG = "config.json"
"""Name of the file with a container's configuration, which OCI runtimes look for."""

_LOCK = ".lock"


class RunLock:
    """The lock of one run, held."""

    def __init__(self, path: str, fd: int) -> None:
        """Take a descriptor that holds the lock."""
        self.path = path
        self.fd = fd

    def release(self, *, forget: bool = False) -> None:
        """Let it go; with ``forget`` the file is deleted, since there is no such run any more."""
        if self.fd < 0:
            return
        if forget:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        os.close(self.fd)
        self.fd = -1


class RunPlace(NamedTuple):
    """The files of one run."""

    container: str
    """The container's ID."""
    directory: str
    """Its directory, which is also its bundle."""
    note: str
    """File that outlives a reboot, and says that the container goes when the run has ended."""

    @classmethod
    def of(cls, store: Store, container: str) -> RunPlace:
        """Return the place of a container's run, whether there is one or not."""
        return cls(
            container,
            os.path.join(runs_directory(store), container),
            os.path.join(_notes_directory(store), container),
        )

    def file(self, name: str) -> str:
        """Return the path of a file in its directory."""
        return os.path.join(self.directory, name)

    def acquire(self, *, wait: bool) -> RunLock | None:
        """Lock it, to own the run.

        Args:
            wait: Wait for another owner, or answer ``None``.
        """
        path = self.directory + _LOCK
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                locked = filelocks.lock(fd, exclusive=True, wait=wait)
                # Whoever owned it before may have deleted the file that we opened.
                if locked and _is_at(fd, path):
                    owned, fd = fd, -1
                    return RunLock(path, owned)
                if not locked:
                    return None
            finally:
                if fd >= 0:
                    os.close(fd)

    def is_owned(self) -> bool:
        """Tell whether a living process looks after it."""
        return is_owned(self.directory)

    def wait_until_free(self) -> None:
        """Wait until nobody looks after it any more."""
        with suppress(FileNotFoundError):
            fd = os.open(self.directory + _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                filelocks.lock(fd, exclusive=True)
            finally:
                os.close(fd)

    def write_note(self) -> None:
        """Note, to be found after a reboot too, that the container is to be removed."""
        os.makedirs(os.path.dirname(self.note), 0o700, exist_ok=True)
        with open(self.note, "wb"):
            pass

    def forget(self) -> None:
        """Delete its files, the lock excepted."""
        delete_tree(self.directory)
        with suppress(FileNotFoundError):
            os.unlink(self.note)


def known_runs(store: Store) -> Iterator[RunPlace]:
    """Yield every run that has left a trace: those that go on, and those of the dead."""
    names = {name.removesuffix(_LOCK) for name in _names(runs_directory(store))}
    names.update(_names(_notes_directory(store)))
    for name in sorted(names):
        yield RunPlace.of(store, name)


def is_owned(directory: str) -> bool:
    """Tell whether a living process looks after the run in a directory."""
    try:
        fd = os.open(directory + _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return filelocks.locked_elsewhere(fd)
    finally:
        os.close(fd)


def runs_directory(store: Store) -> str:
    """Return the directory of all runs."""
    return os.path.join(store.run_root, "hostspec-run")


def _notes_directory(store: Store) -> str:
    return os.path.join(store.root, f"{store.driver_name}-layers", "hostspec", "runs")


def _names(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]
    except (FileNotFoundError, PermissionError):  # what others run is theirs
        return []


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
