"""Walking two trees at once, and saying what changed in the right order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from hostspec.archive.entries import Entry, Owners, carried_xattrs
from hostspec.errors import DriverFailed
from hostspec.values import Change, ChangeKind

__all__ = ["Child", "Trees", "list_entries", "looks_untouched", "walk_changes"]

_NEW_ROOT_MODES = frozenset({0o755, 0o555})  # ours, and the Go library's


class Child(NamedTuple):
    """What became of one name in a directory."""

    name: str
    kind: ChangeKind | None
    """How it changed, or ``None``."""
    enter: bool = False
    """It is a directory in which more may have changed."""


class Trees(Protocol):
    """Two trees to compare, directory by directory."""

    def root(self) -> ChangeKind | None:
        """Tell whether the root directory itself changed."""

    def children(self, path: str) -> list[Child]:
        """Compare the names in a directory of the new tree, by its path; sorted by name."""


def walk_changes(trees: Trees) -> Iterator[Change]:
    """Yield the changes in the order of a walk, each directory before what changed in it.

    Raises:
        DriverFailed: The operating system refused.
    """
    where = "/"
    try:
        root = trees.root()
        if root is not None:
            yield Change("/", root)
        # Directories on the way: path, what is left in it, whether it was reported.
        way: list[tuple[str, Iterator[Child]]] = [("", iter(trees.children("")))]
        reported = 1
        while way:
            above, children = way[-1]
            child = next(children, None)
            if child is None:
                way.pop()
                reported = min(reported, max(len(way), 1))
                continue
            where = path = f"{above}/{child.name}"
            if child.kind is not None:
                for between, _ in way[reported:]:
                    yield Change(between, ChangeKind.MODIFY)
                reported = len(way)
                yield Change(path, child.kind)
            if child.enter:
                way.append((path, iter(trees.children(path))))
                if child.kind is not None:
                    reported = len(way)
    except OSError as error:
        raise DriverFailed(f"compare {where}", error) from error


def list_entries(fd: int, owners: Owners) -> dict[str, Entry]:
    """Return what is in an open directory, by name."""
    found = {}
    with os.scandir(fd) as entries:
        for each in entries:
            try:
                status = each.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone meanwhile: a container may be running
            found[each.name] = Entry(fd, each.name, status, owners)
    return found


def looks_untouched(root: Entry) -> bool:
    """Tell whether a root directory looks like that of a new layer."""
    return (
        stat.S_IMODE(root.status.st_mode) in _NEW_ROOT_MODES
        and root.owners.of(root.status) == (0, 0)
        and not carried_xattrs(root)
    )
