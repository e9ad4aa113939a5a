"""Visit every directory of a tree, with one or several threads, by descriptors alone.

Each directory is opened relative to its parent, so no path is ever too long and no symbolic link
is followed. A thread goes down into the depth by itself, and hands a subtree over only
when another thread has nothing to do; hence the descriptors that are open and the
memory that is used grow with the depth of the tree, not with the number of its files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Condition, Lock, Thread
from typing import Final, NamedTuple, Protocol, Self

from hostspec.kernel.mountfds import open_tree
from hostspec.kernel.mountinfo import mount_table
from hostspec.kernel.own_directory import leave_shared_directory
from hostspec.values import Progress, ProgressCallback

__all__ = [
    "Directory",
    "FirstNames",
    "Tally",
    "Tree",
    "handle",
    "naming",
    "open_directory",
    "opened_tree",
    "walk",
]

_FILES_BETWEEN_REPORTS: Final = 512


class Directory(Protocol):
    """One directory of a tree, with whatever its visitor keeps open for it."""

    def visit(self) -> Sequence[str]:
        """Do the work, and return the names of the subdirectories that are to be visited too."""
        ...

    def child(self, name: str) -> Self:
        """Open a subdirectory. Called after ``visit``, once for each name that it returned."""
        ...

    def close(self) -> None:
        """Give up what is open. Called after the last ``child``, also when the walk fails."""
        ...


def walk(root: Directory, *, threads: int = 1, apart: bool = False) -> None:
    """Visit ``root`` and all directories below it, each after its parent; ``root`` is closed too.

    The first error in any thread stops them all, and is raised when they have stopped.

    Args:
        root: Where to begin.
        threads: How many to use, this one among them unless they are apart.
        apart: Visit in new threads only, each of which has a working directory and a file mode creation mask
            of its own, as :func:`hostspec.kernel.own_directory.leave_shared_directory` gives them;
            ``visit`` may change the directory at will.

    Raises:
        OSError: EAGAIN when there may be no new thread, and all have to be.
    """
    if threads > 1 or apart:
        _Crew(threads, apart=apart).walk(root)
    else:
        _walk_alone(root)


def _walk_alone(root: Directory) -> None:
    open_ones: list[tuple[Directory, list[str]]] = []
    try:
        _enter(root, open_ones)
        while open_ones:
            directory, remaining = open_ones[-1]
            if remaining:
                _enter(directory.child(remaining.pop()), open_ones)
            else:
                open_ones.pop()
                directory.close()
    finally:
        for directory, _ in open_ones:
            directory.close()


def _enter(directory: Directory, open_ones: list[tuple[Directory, list[str]]]) -> None:
    remaining: list[str] = []
    open_ones.append((directory, remaining))
    remaining.extend(directory.visit())


class _Stopped(Exception):
    """Another thread failed."""


class _Crew:
    """Several threads on one tree."""

    def __init__(self, threads: int, *, apart: bool) -> None:
        self._threads = threads
        self._apart = apart
        lock = Lock()
        self._changed = Condition(lock)
        self._helper_ended = Condition(lock)
        self._subtrees: list[Directory] = []
        self._idle = 0
        self._helping = 0
        self._finished = False
        self._error: BaseException | None = None

    def walk(self, root: Directory) -> None:
        self._subtrees.append(root)
        count = self._threads if self._apart else self._threads - 1
        helpers = [Thread(target=self._help, name=f"tree-walk-{n}") for n in range(1, count + 1)]
        try:
            self._start(helpers)
            if self._apart:
                self._wait_for_helpers()
            else:
                self._work()
        except BaseException as error:  # noqa: BLE001 - raised below, when all threads have ended
            self._stop(error)
        self._wait_for_helpers()
        for subtree in self._subtrees:
            subtree.close()
        if self._error is not None:
            raise self._error

    def _start(self, helpers: Sequence[Thread]) -> None:
        """Start as many as may be: a limit on threads makes the walk slower, and no worse."""
        for number, helper in enumerate(helpers):
            with self._changed:
                self._helping += 1
            try:
                helper.start()
            except RuntimeError as error:
                with self._changed:
                    self._helping -= 1
                    self._threads = number if self._apart else number + 1
                    self._changed.notify_all()  # all that there are may be waiting for a subtree
                if self._threads == 0:
                    raise OSError(errno.EAGAIN, str(error)) from error
                return

    def _wait_for_helpers(self) -> None:
        # Not by Thread.join(): when a signal interrupts that, CPython 3.11 takes the thread for ended.
        with self._helper_ended:
            while self._helping:
                self._helper_ended.wait()

    def _help(self) -> None:
        try:
            if self._apart:
                self._work_apart()
            else:
                self._work()
        finally:
            with self._helper_ended:
                self._helping -= 1
                self._helper_ended.notify_all()

    def _work_apart(self) -> None:
        try:
            leave_shared_directory()
        except OSError as error:
            self._stop(error)
            return
        self._work()
        os.chdir("/")  # the thread goes on for a moment, and would keep a mount busy

    def _work(self) -> None:
        try:
            while (subtree := self._next_subtree()) is not None:
                self._walk_subtree(subtree)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised by the thread that began the walk
            self._stop(error)

    def _next_subtree(self) -> Directory | None:
        """Wait for a subtree; ``None`` when there will be none, since all threads wait for one."""
        with self._changed:
            self._idle += 1
            while not self._subtrees and not self._finished:
                if self._idle == self._threads:
                    self._finished = True
                    self._changed.notify_all()
                else:
                    self._changed.wait()
            if self._finished:
                return None
            self._idle -= 1
            return self._subtrees.pop()

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._finished = True
            self._changed.notify_all()

    def _walk_subtree(self, subtree: Directory) -> None:
        open_ones: list[tuple[Directory, list[str]]] = []
        try:
            _enter(subtree, open_ones)
            while open_ones:
                directory, remaining = open_ones[-1]
                if self._finished:
                    raise _Stopped
                if not remaining:
                    open_ones.pop()
                    directory.close()
                    continue
                child = directory.child(remaining.pop())
                if not self._hand_over(child):
                    _enter(child, open_ones)
        finally:
            for directory, _ in open_ones:
                directory.close()

    def _hand_over(self, directory: Directory) -> bool:
        """Give a subtree to a thread that waits for one. False when none does."""
        # Looked at without the lock, in vain most of the time: a stale answer only delays the sharing.
        if self._idle <= len(self._subtrees):
            return False
        with self._changed:
            self._subtrees.append(directory)
            self._changed.notify()
        return True


class Tally:
    """Counts, of several threads together, and reports how far they have come."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress
        self._lock = Lock()
        self._reported = 0
        self.files = 0
        """Files seen."""

    def add(self, files: int) -> None:
        """Count ``files`` more, and report when enough have come together."""
        with self._lock:
            self.files += files
            if self.files - self._reported >= _FILES_BETWEEN_REPORTS:
                self._report()

    def finish(self) -> None:
        """Report the last count."""
        with self._lock:
            self._report()

    def _report(self) -> None:
        self._reported = self.files
        if self._progress is not None:
            self._progress(Progress(self.files, None, "files"))


class FirstName:
    """The name by which an inode was seen first, of several.

    Attributes:
        path: That name, with the way to it.
        names_left: How many others may follow.
        changed: Whether anything was done to the inode.
    """

    __slots__ = ("changed", "names_left", "path")

    def __init__(self, path: str, names_left: int, *, changed: bool) -> None:
        self.path = path
        self.names_left = names_left
        self.changed = changed


class FirstNames:
    """Inodes whose further names may still come, so that each is handled once; for one thread at a time."""

    def __init__(self) -> None:
        self._by_inode: dict[tuple[int, int], FirstName] = {}

    def add(self, found: os.stat_result, path: str, *, changed: bool = True) -> None:
        """Note an inode that was handled, by which name, and whether anything was done to it."""
        inode = (found.st_dev, found.st_ino)
        self._by_inode[inode] = FirstName(path, found.st_nlink - 1, changed=changed)

    def before(self, found: os.stat_result) -> FirstName | None:
        """Return the name of an inode that came before this one, or ``None``; to be asked once for each."""
        inode = (found.st_dev, found.st_ino)
        first = self._by_inode.get(inode)
        if first is not None:
            first.names_left -= 1
            if first.names_left <= 0:
                del self._by_inode[inode]
        return first


class Tree(NamedTuple):
    """An open root directory, and what the mount table says of the mount in which it lies."""

    root: int
    """Descriptor of the root directory."""
    filesystem: str
    """Type of the file system, or ``""`` where the mount is detached and so in no table."""
    options: tuple[str, ...]
    """Options of the file system."""


@contextmanager
def opened_tree(path: str) -> Iterator[Tree]:
    """Open a tree as it is on its own file system: whatever is mounted below ``path`` is not seen.

    Raises:
        OSError: ``path`` is no directory; or something is mounted below it, and this process may not
            look beneath (EPERM without CAP_SYS_ADMIN).
    """
    with ExitStack() as opened:
        root = open_directory(path)
        opened.callback(os.close, root)
        table = mount_table()
        mount_id = _mount_id(root)
        # Only below the root of its own mount, or what is mounted beside the tree would count.
        here = os.readlink(f"/proc/self/fd/{root}").rstrip("/") + "/"
        if any(entry.parent_id == mount_id and entry.mount_point.startswith(here) for entry in table):
            clone = open_tree("", clone=True, dirfd=root)
            opened.callback(os.close, clone)
            root = open_directory(".", parent=clone)
            opened.callback(os.close, root)
        own = next((entry for entry in table if entry.mount_id == mount_id), None)
        yield Tree(root, own.filesystem, own.super_options) if own else Tree(root, "", ())


def _mount_id(descriptor: int) -> int:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as facts:
        return next(int(line.split()[1]) for line in facts if line.startswith("mnt_id:"))


def open_directory(name: str, *, parent: int | None = None) -> int:
    """Open a directory for reading, if possible without changing its access time.

    Args:
        name: A name in ``parent``, not a symbolic link, or else any path.
        parent: Descriptor of the directory in which it lies, or ``None``.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if parent is not None:
        flags |= os.O_NOFOLLOW
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=parent)
    except PermissionError:
        # O_NOATIME is only for who owns the file.
        return os.open(name, flags, dir_fd=parent)


def handle(directory: int, name: str) -> str:
    """Return a path for calls that take no directory descriptor, of any length and any kind of file."""
    return f"/proc/self/fd/{directory}/{name}"


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Put the whole path of a file into the OSError about it, which knows a descriptor and a name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
