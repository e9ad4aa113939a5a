"""What differs between two trees; for an overlay's upper directory see :mod:`hostspec.archive.upper`.

The rules are those of the Go library (containers/storage, ``pkg/archive/changes.go``), so that both say
the same of one layer:

- A file is modified when its type, mode, owner (as a container sees it), device number, target,
  extended attributes, or (but for directories) its size or modification time differ. Content
  is not read.
- A directory in which anything changed is modified.
- A directory that is deleted is one change; one that is added, all that is in it.
- The number of hard links, change times and inode numbers say nothing.

Unlike there, the root directory is reported as ``/`` when *its* mode, owner or extended attributes differ,
since they would get lost otherwise; and ACLs and all other extended attributes that a layer can carry
are compared, not only ``user.*`` and capabilities.

Changes come in the order of a walk, names sorted within each directory, directories before
what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from hostspec.archive.comparison import Child, list_entries, looks_untouched, walk_changes
from hostspec.archive.entries import Entry, Owners, differ
from hostspec.errors import DriverFailed
from hostspec.idmap import IdMap
from hostspec.kernel.resolve import open_in_root
from hostspec.values import Change, ChangeKind

__all__ = ["compare_trees"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def compare_trees(
    new_root: str,
    old_root: str | None,
    *,
    new_map: IdMap,
    old_map: IdMap,
) -> Iterator[Change]:
    """Yield how one tree differs from another.

    Args:
        new_root: The tree as it is now.
        old_root: The tree as it was, or ``None``: an empty layer.
        new_map: The map that the files of ``new_root`` carry.
        old_map: The map that the files of ``old_root`` carry.

    Raises:
        DriverFailed: A directory cannot be read; from the first step on.
    """
    with ExitStack() as held:
        try:
            new = held.enter_context(_Tree(new_root, new_map))
            old = held.enter_context(_Tree(old_root, old_map)) if old_root is not None else None
        except OSError as error:
            raise DriverFailed(f"compare {new_root} with {old_root}", error) from error
        yield from walk_changes(_TwoTrees(new, old))


class _Tree:
    """A tree that is compared."""

    def __init__(self, root: str, idmap: IdMap) -> None:
        self.fd = os.open(root, _DIRECTORY | os.O_CLOEXEC)
        self.owners = Owners(idmap)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)

    @contextmanager
    def entries(self, path: str) -> Iterator[dict[str, Entry] | None]:
        """Open a directory and give what is in it by name; ``None`` when there is none."""
        try:
            fd = open_in_root(self.fd, path or ".", _DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            yield list_entries(fd, self.owners)
        finally:
            os.close(fd)


class _TwoTrees:
    """Compares two trees."""

    def __init__(self, new: _Tree, old: _Tree | None) -> None:
        self._new = new
        self._old = old
        # The uppermost directory on the way that the old tree has not.
        self._new_from: str | None = None

    def root(self) -> ChangeKind | None:
        ours = Entry(self._new.fd, ".", os.fstat(self._new.fd), self._new.owners)
        if self._old is None:
            return None if looks_untouched(ours) else ChangeKind.MODIFY
        theirs = Entry(self._old.fd, ".", os.fstat(self._old.fd), self._old.owners)
        return ChangeKind.MODIFY if differ(ours, theirs) else None

    def children(self, path: str) -> list[Child]:
        with ExitStack() as held:
            ours = held.enter_context(self._new.entries(path)) or {}
            theirs = self._theirs(path, held)
            return [_compare(name, ours.get(name), theirs.get(name)) for name in sorted({**theirs, **ours})]

    def _theirs(self, path: str, held: ExitStack) -> dict[str, Entry]:
        """Return what the old tree has in a directory; each is asked for after the one in which it lies."""
        if self._old is None:
            return {}
        # Where it had a symbolic link instead, the path would lead on to somewhere else.
        if self._new_from is not None and path.startswith(f"{self._new_from}/"):
            return {}
        found = held.enter_context(self._old.entries(path))
        self._new_from = path if found is None else None
        return found or {}


def _compare(name: str, new: Entry | None, old: Entry | None) -> Child:
    if new is None:
        return Child(name, ChangeKind.DELETE)
    if old is None:
        return Child(name, ChangeKind.ADD, new.is_directory)
    same = os.path.samestat(new.status, old.status)
    kind = ChangeKind.MODIFY if differ(new, old) else None
    return Child(name, kind, new.is_directory and not same)
