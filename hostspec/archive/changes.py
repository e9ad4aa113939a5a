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
from contextlib import ExitStack

from hostspec.archive.comparison import Child, list_entries, list_types, looks_untouched, walk_changes
from hostspec.archive.descent import Descent
from hostspec.archive.entries import Entry, Owners, differ
from hostspec.errors import DriverFailed
from hostspec.idmap import IdMap
from hostspec.values import Change, ChangeKind

__all__ = ["compare_trees"]


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
            new = _Tree(new_root, new_map, held)
            old = _Tree(old_root, old_map, held) if old_root is not None else None
        except OSError as error:
            raise DriverFailed(f"compare {new_root} with {old_root}", error) from error
        yield from walk_changes(_TwoTrees(new, old))


class _Tree:
    """A tree that is compared."""

    def __init__(self, root: str, idmap: IdMap, held: ExitStack) -> None:
        self._descent = held.enter_context(Descent(root))
        self.fd = self._descent.root
        self.owners = Owners(idmap)

    def find(self, path: str) -> int | None:
        """Return an open directory (until one outside is asked for), or ``None`` when there is none."""
        try:
            return self._descent.enter_child(path) if path else self.fd
        except (FileNotFoundError, NotADirectoryError):
            return None


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
        fd = self._new.find(path)
        fd_below = self._find_below(path)
        if fd_below is None or self._old is None:
            found = {} if fd is None else list_types(fd)
            return [Child.added(name, found[name]) for name in sorted(found)]
        ours = {} if fd is None else list_entries(fd, self._new.owners)
        theirs = list_entries(fd_below, self._old.owners)
        return [_compare(name, ours.get(name), theirs.get(name)) for name in sorted({**theirs, **ours})]

    def _find_below(self, path: str) -> int | None:
        """Find a directory of the old tree; each is asked for after the one in which it lies."""
        if self._old is None:
            return None
        # Where it had something else instead, nothing in it can be there.
        if self._new_from is not None and path.startswith(f"{self._new_from}/"):
            return None
        fd = self._old.find(path)
        self._new_from = path if fd is None else None
        return fd


def _compare(name: str, new: Entry | None, old: Entry | None) -> Child:
    if new is None:
        return Child(name, ChangeKind.DELETE)
    if old is None:
        return Child.added(name, new.file_type)
    same = os.path.samestat(new.status, old.status)
    kind = ChangeKind.MODIFY if differ(new, old) else None
    return Child(name, kind, new.file_type, new.is_directory and not same)
