"""Walking two trees at once, and saying what changed in the right order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from hostspec.archive.entries import Entry, Owners, carried_xattrs
from hostspec.errors import DriverFailed
from hostspec.values import Change, ChangeKind

__all__ = ["Child", "SeenChange", "Trees", "list_entries", "list_types", "looks_untouched", "walk_changes"]

_NEW_ROOT_MODES = frozenset({0o755, 0o555})  # ours, and the Go library's


class SeenChange(Change):
    """A change, with what the walk knows of the file; equal to the same change without."""

    file_type: int
    """What there is now, as in octal modes (``S_IFREG``, …); 0 where nothing is, or the walk cannot say."""

    @classmethod
    def of(cls, path: str, kind: ChangeKind, file_type: int) -> SeenChange:
        """Return a change to a file of this type."""
        made = cls(path, kind)
        made.file_type = file_type
        return made


class Child(NamedTuple):
    """What became of one name in a directory."""

    name: str
    kind: ChangeKind | None
    """How it changed, or ``None``."""
    file_type: int = 0
    """As in :class:`SeenChange`."""
    enter: bool = False
    """It is a directory in which more may have changed."""

    @classmethod
    def added(cls, name: str, file_type: int) -> Child:
        """Return a name that was not there before, and all that is in it neither."""
        return cls(name, ChangeKind.ADD, file_type, file_type == stat.S_IFDIR)


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
            yield SeenChange.of("/", root, stat.S_IFDIR)
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
                    yield SeenChange.of(between, ChangeKind.MODIFY, stat.S_IFDIR)
                reported = len(way)
                yield SeenChange.of(path, child.kind, child.file_type)
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


def list_types(fd: int) -> dict[str, int]:
    """Return the types of what is in an open directory, by name: as in octal modes, but 0 for special files.

    Most file systems tell them with the names, so that no file is looked at.
    """
    with os.scandir(fd) as entries:
        return {each.name: _file_type(each) for each in entries}


def _file_type(entry: os.DirEntry[str]) -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else 0


def looks_untouched(root: Entry) -> bool:
    """Tell whether a root directory looks like that of a new layer."""
    return (
        stat.S_IMODE(root.status.st_mode) in _NEW_ROOT_MODES
        and root.owners.of(root.status) == (0, 0)
        and not carried_xattrs(root)
    )
