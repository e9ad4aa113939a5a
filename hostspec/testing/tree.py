"""Whole trees as values: what a layer is expected to show, to the last bit.

A :class:`Tree` says of every path what a container sees there. Trees are changed by making new ones
(:meth:`Tree.with_entries`, :meth:`Tree.without`), compared with each other in words
(:meth:`Tree.differences`), and written to and read from disk by :mod:`hostspec.testing.on_disk`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Final

from hostspec.values import Change, ChangeKind

__all__ = [
    "MTIME_NS",
    "Entry",
    "Kind",
    "Tree",
    "character_device",
    "directory",
    "fifo",
    "file",
    "socket",
    "symlink",
]

MTIME_NS: Final = 1_700_000_000_123_456_789
"""Modification time of an entry that says nothing else, in nanoseconds since the epoch."""


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character device"
    BLOCK = "block device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is at one path, as a container sees it."""

    kind: Kind
    """What it is."""
    mode: int
    """Permission, set-ID and sticky bits."""
    uid: int = 0
    """Container UID; ``-1 - ID`` for a host ID that the map does not cover."""
    gid: int = 0
    """Container GID; ``-1 - ID`` for a host ID that the map does not cover."""
    mtime_ns: int = MTIME_NS
    """Modification time in nanoseconds since the epoch."""
    content: bytes = b""
    """Content of a file, target of a symbolic link."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Names and values, sorted; those that hold IDs as :mod:`hostspec.testing.id_xattrs` writes them."""
    sparse: bool = False
    """True for a file that occupies much less than its size."""

    def changed(self, **changes: object) -> Entry:
        """Return this entry with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def differences(self, expected: Entry) -> Iterator[str]:
        """Yield each fact in which this entry is not ``expected``."""
        for field in fields(self):
            mine, other = getattr(self, field.name), getattr(expected, field.name)
            if mine != other:
                yield f"{field.name} is {_shown(field.name, mine)}, expected {_shown(field.name, other)}"

    def is_changed_from(self, older: Entry) -> bool:
        """Tell whether a driver must report a change; the times of directories do not count."""
        if self.kind is older.kind is Kind.DIRECTORY:
            older = older.changed(mtime_ns=self.mtime_ns)
        return self != older


def _shown(name: str, value: object) -> str:
    if name == "mode":
        return f"{value:04o}"
    if name in {"uid", "gid"} and isinstance(value, int) and value < 0:
        return f"host ID {-1 - value}, which is outside the map,"
    if isinstance(value, Kind):
        return f"a {value.value}"
    if isinstance(value, bytes) and len(value) > 80:
        return f"{value[:60]!r}… ({len(value)} bytes)"
    return repr(value)


def file(
    content: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = MTIME_NS,
    xattrs: Mapping[str, bytes] | None = None,
    sparse: bool = False,
) -> Entry:
    """Describe a regular file."""
    return Entry(
        kind=Kind.FILE,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=mtime_ns,
        content=content,
        xattrs=tuple(sorted((xattrs or {}).items())),
        sparse=sparse,
    )


def directory(
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = MTIME_NS,
    xattrs: Mapping[str, bytes] | None = None,
) -> Entry:
    """Describe a directory."""
    return Entry(
        kind=Kind.DIRECTORY,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=mtime_ns,
        xattrs=tuple(sorted((xattrs or {}).items())),
    )


def symlink(
    target: str,
    *,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = MTIME_NS,
    xattrs: Mapping[str, bytes] | None = None,
) -> Entry:
    """Describe a symbolic link."""
    return Entry(
        kind=Kind.SYMLINK,
        mode=0o777,
        uid=uid,
        gid=gid,
        mtime_ns=mtime_ns,
        content=target.encode("utf-8", "surrogateescape"),
        xattrs=tuple(sorted((xattrs or {}).items())),
    )


def fifo(*, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    """Describe a named pipe."""
    return Entry(kind=Kind.FIFO, mode=mode, uid=uid, gid=gid)


def socket(*, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """Describe a Unix domain socket."""
    return Entry(kind=Kind.SOCKET, mode=mode, uid=uid, gid=gid)


def character_device(major: int, minor: int, *, mode: int = 0o666, uid: int = 0, gid: int = 0) -> Entry:
    """Describe a character device."""
    return Entry(kind=Kind.CHARACTER, mode=mode, uid=uid, gid=gid, device=(major, minor))


class Tree:
    """Every path of a layer's whole tree, ``/`` included, with what is there.

    Immutable. Paths are absolute within the tree. Names that are hard links of each other have
    equal entries and stand together in :attr:`links`.
    """

    __slots__ = ("_entries", "links")

    links: frozenset[frozenset[str]]
    """Groups of paths that are one inode."""

    def __init__(self, entries: Mapping[str, Entry], *, links: Iterable[Iterable[str]] = ()) -> None:
        """Describe a tree.

        Args:
            entries: What is at each path. ``/`` may be left out, and so may all but one name of a
                group of hard links.
            links: Groups of paths that are one inode.
        """
        complete = {"/": directory(), **entries}
        groups = frozenset(frozenset(group) for group in links)
        for group in groups:
            entry = next(complete[path] for path in sorted(group) if path in complete)
            complete.update(dict.fromkeys(group, entry))
        for path in complete:
            parent = complete.get(_parent_of(path))
            if parent is None or parent.kind is not Kind.DIRECTORY:
                raise ValueError(f"{path!r} has no directory to be in")
        # By components, so that a directory comes right before what is in it.
        self._entries = {path: complete[path] for path in sorted(complete, key=_components)}
        self.links = groups

    def __getitem__(self, path: str) -> Entry:
        try:
            return self._entries[path]
        except KeyError:
            raise KeyError(f"{path} is not there, only {', '.join(self)}") from None

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self._entries == other._entries and self.links == other.links

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Tree of {len(self)} entries>"

    def get(self, path: str) -> Entry | None:
        """Return what is at a path, if anything is."""
        return self._entries.get(path)

    def items(self) -> Iterable[tuple[str, Entry]]:
        """Return paths and entries, each directory before what is in it."""
        return self._entries.items()

    def with_entries(self, entries: Mapping[str, Entry], *, links: Iterable[Iterable[str]] = ()) -> Tree:
        """Return this tree with entries added or replaced.

        What was below a replaced directory goes, and what is replaced is no hard link any more.
        """
        gone = (path for path, entry in entries.items() if entry.kind is not Kind.DIRECTORY and path in self)
        rest = self.without(*gone)
        return Tree({**dict(rest.items()), **entries}, links=(*rest.links, *links))

    def without(self, *paths: str) -> Tree:
        """Return this tree without ``paths`` and what is below them."""
        kept = {path: entry for path, entry in self.items() if not _is_below_any(path, paths)}
        groups = (frozenset(path for path in group if path in kept) for group in self.links)
        return Tree(kept, links=(group for group in groups if len(group) > 1))

    def with_root_time(self, mtime_ns: int) -> Tree:
        """Return this tree with another modification time of its root directory."""
        return Tree({**self._entries, "/": self["/"].changed(mtime_ns=mtime_ns)}, links=self.links)

    def changes_from(self, older: Tree | None) -> list[Change]:
        """Return what a driver must report between a layer that shows ``older`` and this one.

        Without the root directory, on which drivers need not agree.
        """
        known = older if older is not None else Tree({})
        found: dict[str, ChangeKind] = {}
        for path, entry in self.items():
            if path not in known:
                found[path] = ChangeKind.ADD
            elif entry.is_changed_from(known[path]):
                found[path] = ChangeKind.MODIFY
        for path in known:
            parent = _parent_of(path)
            if path not in self and parent in self and self[parent].kind is Kind.DIRECTORY:
                found[path] = ChangeKind.DELETE
        for path in tuple(found):
            while (path := _parent_of(path)) != "/":
                found.setdefault(path, ChangeKind.MODIFY)
        found.pop("/", None)
        return [Change(path, found[path]) for path in sorted(found, key=_components)]

    def differences(self, expected: Tree) -> list[str]:
        """Return, one line each, everything in which this tree is not ``expected``."""
        lines: list[str] = []
        for path in sorted({*self, *expected}, key=_components):
            if path not in expected:
                lines.append(f"{path!r} is there, and should not be")
            elif path not in self:
                lines.append(f"{path!r} is missing")
            else:
                lines.extend(f"{path!r}: {fact}" for fact in self[path].differences(expected[path]))
        lines.extend(f"hard links {sorted(group)} are split" for group in expected.links - self.links)
        lines.extend(f"{sorted(group)} are one inode" for group in self.links - expected.links)
        return lines

    def check(self, expected: Tree) -> None:
        """Fail, saying every difference, unless this tree is ``expected``."""
        __tracebackhide__ = True
        if lines := self.differences(expected):
            raise AssertionError("\n".join(("the tree differs:", *lines)))


def _components(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/")) if path != "/" else ()


def _parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _is_below_any(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
