"""The store's lock files, shared with every program that uses containers/storage.

A lock is a record lock over the whole file, shared or exclusive (pkg/lockfile/lockfile_unix.go).
That library uses process-owned locks; ours belong to an open file description, exclude those, and
exclude each other between threads as well, since every acquisition opens the file anew.

The file's content is the *last-writer token*, 64 bytes that change with every write to what the lock
guards; who sees another token than at its last load loads again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TypeVar

from hostspec.kernel import filelocks
from hostspec.store.refusals import refusals

__all__ = ["TOKEN_SIZE", "HeldLock", "HeldLocks", "LockFile", "LockFiles", "OccasionLocks"]

TOKEN_SIZE = 64
"""Length of the last-writer token in bytes."""

Descriptor = TypeVar("Descriptor", int, int | None)

_OCCASION = "hostspec-"
_MODE = 0o644  # others may open it for reading: additional image stores are shared that way
_writes = count()
_held: set[int] = set()
_switching = threading.RLock()
"""Held while a descriptor is opened or closed and noted, so that no fork falls between the two."""
_forks_are_watched = False


class HeldLock:
    """A lock file while it is locked."""

    __slots__ = ("_fd", "exclusive")

    def __init__(self, fd: int | None, *, exclusive: bool) -> None:
        """Take a locked descriptor, or ``None`` for a lock file that does not exist."""
        self._fd = fd
        self.exclusive = exclusive

    def token(self) -> bytes:
        """Return the last-writer token; empty where nobody has written yet."""
        return b"" if self._fd is None else os.pread(self._fd, TOKEN_SIZE, 0)

    def is_at(self, path: str) -> bool:
        """Tell whether the locked file is still the one of that name."""
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), os.stat(path))
        except FileNotFoundError:
            return False

    def record_write(self) -> bytes:
        """Write a new token, before the guarded files are written, and return it.

        Before, since a process that is killed in between then only makes others load once too often.
        """
        assert self._fd is not None  # noqa: S101 - only shared locks may lack a file
        assert self.exclusive  # noqa: S101 - a rule of ours, not of the caller's input
        stamp = time.time_ns().to_bytes(8, "little") + next(_writes).to_bytes(8, "little")
        token = (stamp + os.getpid().to_bytes(4, "little")).ljust(TOKEN_SIZE, b"\0")
        token = token[: len(stamp) + 4] + os.urandom(TOKEN_SIZE - len(stamp) - 4)
        os.pwrite(self._fd, token, 0)
        return token


class LockFile:
    """A lock file; to be locked from any thread, but not again by one that holds it."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Name the file; it is made when it is first locked exclusively.

        Args:
            path: Absolute path.
            read_only: Never make or write the file; where it does not exist, shared locks are granted.
        """
        self.path = path
        self.read_only = read_only
        self._holders: set[tuple[int, int]] = set()

    @contextmanager
    def shared(self) -> Iterator[HeldLock]:
        """Hold the lock together with other readers; waits while somebody writes.

        Where the file does not exist there is nothing to guard yet, and nothing to wait for.
        """
        fd = _noted(self._open_for_reading)
        if fd is None:
            yield HeldLock(None, exclusive=False)
            return
        with self._locked(fd, exclusive=False) as held:
            yield held

    @contextmanager
    def exclusive(self) -> Iterator[HeldLock]:
        """Hold the lock alone; waits while anybody holds it.

        Raises:
            StoreReadOnly: The file may not be made or opened for writing.
            DriverFailed: The operating system refused for another reason.
        """
        with self._locked(_noted(self._open_for_writing), exclusive=True) as held:
            yield held

    def _open_for_reading(self) -> int | None:
        with refusals("read", self.path):
            try:
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None

    def _open_for_writing(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with refusals("write", self.path):
            try:
                return os.open(self.path, flags, _MODE)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
                return os.open(self.path, flags, _MODE)

    @contextmanager
    def _locked(self, fd: int, *, exclusive: bool) -> Iterator[HeldLock]:
        # A forked child has no other thread of its parent's, and may have one that looks like it.
        holder = os.getpid(), threading.get_ident()
        try:
            if holder in self._holders:
                # Better than a thread that waits for itself for ever.
                raise RuntimeError(f"{self.path} is locked twice by one thread")
            filelocks.lock(fd, exclusive=exclusive)
            self._holders.add(holder)
            try:
                yield HeldLock(fd, exclusive=exclusive)
            finally:
                self._holders.discard(holder)
        finally:
            with _switching:
                if fd in _held:  # else this is a forked child, which has closed it
                    _held.discard(fd)
                    os.close(fd)


class HeldLocks:
    """Several lock files while all are locked."""

    __slots__ = ("_held",)

    def __init__(self, held: Sequence[HeldLock]) -> None:
        """Take them in the order of the files."""
        self._held = tuple(held)

    def token(self) -> bytes:
        """Return all tokens together: what anyone writes changes it."""
        return b"".join(each.token() for each in self._held)

    def record_write(self) -> bytes:
        """Write a new token to each, and return what :meth:`token` would."""
        return b"".join(each.record_write() for each in self._held)


class LockFiles:
    """Several lock files that are locked together, always in the same order."""

    def __init__(self, files: Sequence[LockFile]) -> None:
        """Take the files; the first names them all."""
        self._files = tuple(files)
        self.path = self._files[0].path
        self.read_only = any(each.read_only for each in self._files)

    @contextmanager
    def shared(self) -> Iterator[HeldLocks]:
        """Hold all together with other readers; see :meth:`LockFile.shared`."""
        with ExitStack() as stack:
            yield HeldLocks([stack.enter_context(each.shared()) for each in self._files])

    @contextmanager
    def exclusive(self) -> Iterator[HeldLocks]:
        """Hold all alone; see :meth:`LockFile.exclusive`."""
        with ExitStack() as stack:
            yield HeldLocks([stack.enter_context(each.exclusive()) for each in self._files])


class OccasionLocks:
    """Lock files that are made for one occasion each, in a directory, and deleted after it."""

    def __init__(self, directory: str) -> None:
        """Name the directory; it is made when it is needed."""
        self._directory = directory

    @contextmanager
    def holding(self, occasion: str) -> Iterator[None]:
        """Be the only one, of all threads and processes, who does what ``occasion`` names.

        Args:
            occasion: A file name.
        """
        lock = LockFile(os.path.join(self._directory, _OCCASION + occasion))
        while True:
            with lock.exclusive() as held:
                # Whoever had it before us may have deleted the file that we waited for.
                if held.is_at(lock.path):
                    try:
                        yield
                    finally:
                        with refusals("write", lock.path):
                            os.unlink(lock.path)
                    return

    def sweep(self) -> None:
        """Delete the files of those who died while they held one.

        Raises:
            StoreReadOnly: They may not be deleted.
            DriverFailed: The operating system refused for another reason.
        """
        with refusals("write", self._directory):
            try:
                names = [name for name in os.listdir(self._directory) if name.startswith(_OCCASION)]
            except FileNotFoundError:
                return
            for name in names:
                _delete_unless_held(os.path.join(self._directory, name))


def _delete_unless_held(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if filelocks.lock(fd, exclusive=True, wait=False) and HeldLock(fd, exclusive=True).is_at(path):
            os.unlink(path)
    finally:
        os.close(fd)


def _noted(open_: Callable[[], Descriptor]) -> Descriptor:
    """Open a lock's file so that no forked child keeps holding our lock after we have let it go."""
    global _forks_are_watched  # noqa: PLW0603 - the interpreter's hooks are global, too
    with _switching:
        if not _forks_are_watched:
            _forks_are_watched = True
            os.register_at_fork(
                before=lambda: _switching.acquire(),  # noqa: PLW0108 - the name is looked up at each fork
                after_in_parent=lambda: _switching.release(),  # noqa: PLW0108
                after_in_child=_close_held,
            )
        fd = open_()
        if fd is not None:
            _held.add(fd)
        return fd


def _close_held() -> None:
    global _switching  # noqa: PLW0603 - the parent's, which is held by the fork
    _switching = threading.RLock()
    for fd in _held:
        os.close(fd)
    _held.clear()
