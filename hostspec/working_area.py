"""A driver's working area: where layers are made before anybody sees them, and go before they are deleted.

On disk it is what newer versions of containers/storage keep there (its packages
``internal/tempdir`` and ``internal/staging_lockfile``), so that each side leaves the other's
live areas alone and clears away its dead ones::

    <home>/tempdirs/                  mode 0700
        lock-X                        mode 0600, empty, write-locked as long as the area lives
        temp-dir-X/                   mode 0700
            0-NAME, 1-NAME …          put aside: renamed here, to be deleted
            layers/ID                 being made (only we have these)

X is any text, chosen at random. The protocol, in both programs:

* Whoever makes an area creates ``lock-X`` exclusively, locks it, and only then makes
  ``temp-dir-X``. The lock is a record lock for writing over the whole file (``F_SETLK``;
  ours belongs to the open file, and the two kinds exclude each other). If somebody
  else has the lock, X is given up for another.
* Whoever gives an area up deletes ``temp-dir-X``, then ``lock-X``, then lets the lock go.
* Whoever opens a store looks at each X that has either name. It tries the lock, without
  waiting, after creating ``lock-X`` where that is missing. If it gets it, nobody lives
  there, and it deletes both in the same order; else it leaves both alone.

We also look, after locking, whether the name still leads to the locked file. The Go library
does not: a file that was deleted between its opening and its locking it takes for a lock. Since every X
is used once, only a directory that is already gone can be concerned.

The lock ends with the process, however that ends; an ordinary exit gives the area up.
A forked child is another process: it closes its copy of the descriptor, owns none of the
parent's layers, and makes an area of its own when it needs one.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

from hostspec.errors import InvalidRequest
from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.filelocks import lock

__all__ = ["WorkingArea"]

_ROOT = "tempdirs"
_LOCK = "lock-"
_DIRECTORY = "temp-dir-"
_LAYERS = "layers"

_MAX_TRIES = 1000
"""How many names are tried before giving up, as in the Go library."""

Delete = Callable[[str], int | None]
"""Deletes a file or directory with all it holds, or nothing where it is missing.

Returns the bytes freed, if it knows.
"""


class WorkingArea:
    """The working area of this process in the home of one driver.

    Nothing is on disk before the first use. Safe with threads, processes and forks.
    """

    def __init__(self, home: str, *, delete: Delete = delete_tree) -> None:
        """Stand for an area in ``home``, without touching the disk.

        Args:
            home: The driver's directory.
            delete: How to delete one layer, or one thing that was put aside. Nothing is mounted there then.
        """
        self._root = os.path.join(os.path.abspath(home), _ROOT)
        self._delete = delete
        self._claimed: _Claim | None = None
        self._aside: deque[str] = deque()
        self._numbers = count()
        _areas.add(self)

    @property
    def path(self) -> str:
        """The directory of this process; made at the first use.

        Raises:
            OSError: It cannot be made.
        """
        return self._claim().directory

    def staged(self, layer_id: str) -> str:
        """Return the path at which a layer is made, before it is renamed to its place; makes only the area.

        Raises:
            InvalidRequest: The ID is no file name.
            OSError: The area cannot be made.
        """
        _refuse_unless_name(layer_id)
        layers = os.path.join(self.path, _LAYERS)
        with contextlib.suppress(FileExistsError):
            os.mkdir(layers, 0o700)
        return os.path.join(layers, layer_id)

    def has(self, layer_id: str) -> bool:
        """Tell whether this process is making a layer of that ID here."""
        claim = self._claimed
        if claim is None or not _is_name(layer_id):
            return False
        return os.path.lexists(os.path.join(claim.directory, _LAYERS, layer_id))

    def put_aside(self, path: str) -> str:
        """Take a file or directory out of sight by one rename, to be deleted by :meth:`reclaim`.

        Args:
            path: On the file system of the home. Nothing must be mounted on it.

        Returns:
            Where it is now.

        Raises:
            OSError: It could not be renamed, and is where it was.
        """
        name = f"{next(self._numbers)}-{os.path.basename(path.rstrip('/'))}"
        target = os.path.join(self.path, name)
        os.rename(path, target)
        self._aside.append(target)
        return target

    def reclaim(self) -> int:
        """Delete what was put aside here, and the areas of processes that are gone.

        Tries everything before it raises; what could not be deleted is tried again next time.

        Returns:
            Bytes freed, as far as the way of deleting tells.

        Raises:
            OSError: The first error.
        """
        freed = 0
        errors: list[OSError] = []
        for deletion in (self._delete_aside, self._delete_dead):
            for step in deletion():
                try:
                    freed += step()
                except OSError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return freed

    def close(self) -> None:
        """Give the area up with all that is still in it; a later use makes a new one.

        Raises:
            OSError: Something could not be deleted; the area then counts as dead, and others try again.
        """
        with _switching:
            claim, self._claimed = self._claimed, None
            self._aside.clear()
        if claim is not None:
            try:
                self._clear(claim)
            finally:
                claim.release()

    def _claim(self) -> _Claim:
        with _switching:
            claim = self._claimed
            if claim is None or not os.path.isdir(claim.directory):
                # Missing where somebody deleted the whole home beside us, as a reset of the store does.
                self._claimed = claim = _claim_new(self._root)
            return claim

    def _disown(self) -> None:
        """Forget, in a forked child, what is the parent's."""
        self._claimed = None
        self._aside.clear()

    def _delete_aside(self) -> Iterator[Callable[[], int]]:
        # Taken one by one, so that threads which reclaim at once share the work. An error puts it back,
        # behind those that were there at the start.
        for _ in range(len(self._aside)):
            yield self._delete_next_aside

    def _delete_next_aside(self) -> int:
        try:
            path = self._aside.popleft()
        except IndexError:
            return 0
        try:
            return self._delete_one(path)
        except OSError:
            self._aside.append(path)
            raise

    def _delete_dead(self) -> Iterator[Callable[[], int]]:
        for name in sorted(_names(self._root)):
            yield lambda name=name: self._delete_if_dead(name)  # type: ignore[misc]

    def _delete_if_dead(self, name: str) -> int:
        claim = self._claimed
        if claim is not None and claim.lock_path == os.path.join(self._root, _LOCK + name):
            return 0
        dead = _try_claim(self._root, name, os.O_CREAT)
        if dead is None:
            return 0
        try:
            return self._clear(dead)
        finally:
            dead.release()

    def _clear(self, claim: _Claim) -> int:
        """Delete an area whose lock is held, the lock's file last."""
        layers = os.path.join(claim.directory, _LAYERS)
        freed = sum(map(self._delete_one, _entries(layers)))
        freed += sum(self._delete_one(path) for path in _entries(claim.directory) if path != layers)
        for directory in (layers, claim.directory):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(claim.lock_path)
        return freed

    def _delete_one(self, path: str) -> int:
        from hostspec.kernel.mounts import unmount_all  # noqa: PLC0415 - only where something is deleted

        # A process that was killed may have left its mounts; deleting must never reach through one.
        unmount_all(os.path.realpath(path))
        return self._delete(path) or 0


class _Claim:
    """The lock on one area, held."""

    def __init__(self, lock_fd: int, lock_path: str, directory: str) -> None:
        self._lock_fd = lock_fd
        self.lock_path = lock_path
        self.directory = directory

    def release(self) -> None:
        """Close the lock's descriptor; where no fork has another, the lock is free then.

        Never by unlocking, which would free it for the parent of a forked child too.
        """
        with _switching:
            lock_fd, self._lock_fd = self._lock_fd, -1
            if lock_fd >= 0:
                os.close(lock_fd)

    def __del__(self) -> None:
        self.release()


def _claim_new(root: str) -> _Claim:
    os.makedirs(root, 0o700, exist_ok=True)
    for _ in range(_MAX_TRIES):
        claim = _try_claim(root, os.urandom(8).hex(), os.O_CREAT | os.O_EXCL)
        if claim is None:
            continue
        try:
            os.mkdir(claim.directory, 0o700)
        except BaseException:
            os.unlink(claim.lock_path)
            claim.release()
            raise
        return claim
    raise OSError(errno.EAGAIN, "no lock for a working area could be had", root)


def _try_claim(root: str, name: str, creation: int) -> _Claim | None:
    """Lock an area, or answer ``None`` where somebody else has the lock or has deleted it meanwhile."""
    path = os.path.join(root, _LOCK + name)
    with _switching:
        try:
            lock_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | creation, 0o600)
        except FileExistsError:
            return None
        claim = _Claim(lock_fd, path, os.path.join(root, _DIRECTORY + name))
        _claims.add(claim)
    try:
        if lock(lock_fd, exclusive=True, wait=False) and _leads_to(path, lock_fd):
            return claim
    except BaseException:
        claim.release()
        raise
    claim.release()
    return None


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _names(root: str) -> set[str]:
    """Return the X of every area, whole or half there."""
    try:
        found = os.listdir(root)
    except FileNotFoundError:
        return set()
    pairs = ((each, prefix) for each in found for prefix in (_LOCK, _DIRECTORY))
    return {each.removeprefix(prefix) for each, prefix in pairs if each.startswith(prefix)}


def _entries(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text


def _refuse_unless_name(layer_id: str) -> None:
    if not _is_name(layer_id):
        raise InvalidRequest(f"layer ID {layer_id!r}", "must be usable as a file name")


_areas: weakref.WeakSet[WorkingArea] = weakref.WeakSet()
_claims: weakref.WeakSet[_Claim] = weakref.WeakSet()

_switching = threading.RLock()
"""Held while a lock's file is opened or an area changes hands, so that no fork falls between the two."""


def _disown_all() -> None:
    global _switching  # noqa: PLW0603 - the parent's, which its threads may have held
    _switching = threading.RLock()
    for area in _areas:
        area._disown()  # noqa: SLF001
    for claim in _claims:
        claim.release()


def _leave_all() -> None:
    """Leave nothing behind at an ordinary exit; what cannot be deleted is left to the next process."""
    for area in tuple(_areas):
        with contextlib.suppress(OSError):
            area.close()


atexit.register(_leave_all)
os.register_at_fork(
    before=lambda: _switching.acquire(),  # noqa: PLW0108 - the name is looked up at each fork
    after_in_parent=lambda: _switching.release(),  # noqa: PLW0108
    after_in_child=_disown_all,
)
