"""The tree that a chain of layer tars makes, to be compared with the one that is there.

Only what the tars say is compared: kind, owner, permissions, size, target of a link. Where they do not
say it, or it depends on who unpacked them, nothing is expected.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostspec.archive.entries import Owners
from hostspec.archive.headers import Kind
from hostspec.archive.member import Member
from hostspec.archive.whiteouts import AUFS_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from hostspec.idmap import IdMap

__all__ = ["Described", "Uncertain", "differences", "tree_of"]

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Uncertain(Exception):
    """What the tars make depends on who unpacked them, as where a name leads through a symbolic link."""


class Facts(NamedTuple):
    """What a tar says of a file."""

    type: int
    """File type bits of its mode."""
    mode: int
    """Permission, set-ID and sticky bits."""
    uid: int
    gid: int
    size: int
    """In bytes; of regular files only."""
    target: bytes
    """Of a symbolic link."""


class Described(NamedTuple):
    """A member of a tar, reduced to what is compared."""

    path: tuple[bytes, ...]
    """Its name in components; none for the root."""
    facts: Facts | None
    """What it says, or ``None`` for a further name of another."""
    link: tuple[bytes, ...] = ()
    """The name of that other."""

    @classmethod
    def of(cls, member: Member) -> Described:
        """Describe a member."""
        path = _components(member.name)
        if member.kind == Kind.HARD_LINK:
            return cls(path, None, _components(member.link))
        size = member.size if member.kind == Kind.FILE else 0
        target = member.link if member.kind == Kind.SYMLINK else b""
        return cls(path, Facts(_TYPES[member.kind], member.mode, member.uid, member.gid, size, target))


class Node:
    """A file that is expected."""

    __slots__ = ("children", "facts")

    def __init__(self, facts: Facts | None) -> None:
        """Expect a file of which this is known; of ``None`` only that it is there."""
        self.facts = facts
        self.children: dict[bytes, Node] | None = None
        if facts is None or facts.type == stat.S_IFDIR:
            self.children = {}


def tree_of(layers: Sequence[Sequence[Described]]) -> Node:
    """Return the root of the tree that layers make, the lowest first.

    Raises:
        Uncertain: It cannot be told.
    """
    root = Node(None)
    for members in layers:
        for member in members:
            _delete(root, member)
        named = {member.path for member in members}
        for member in members:
            _add(root, member, named)
    return root


def _delete(root: Node, member: Described) -> None:
    """Do what a whiteout says, which concerns only the layers below."""
    if not member.path or not member.path[-1].startswith(_WHITEOUT):
        return
    parent = _find(root, member.path[:-1])
    if parent is None or parent.children is None:
        return
    name = member.path[-1]
    if name == _OPAQUE:
        parent.children.clear()
    elif not name.startswith(_AUFS):
        parent.children.pop(name[len(_WHITEOUT) :], None)


def _add(root: Node, member: Described, named: set[tuple[bytes, ...]]) -> None:
    path = member.path
    if not path or path[-1].startswith(_WHITEOUT):
        return
    above = root
    for depth, name in enumerate(path[:-1], start=1):
        children = _children(above)
        here = children.get(name)
        if here is None:
            here = children[name] = Node(None)
        elif path[:depth] not in named and here.facts is not None and here.children is not None:
            here.facts = None  # made anew in this layer, by rules that differ between programs
        above = here
    siblings = _children(above)
    if member.facts is None:
        other = _find(root, member.link)
        if other is None:
            raise Uncertain
        siblings[path[-1]] = other
        return
    before = siblings.get(path[-1])
    node = Node(member.facts)
    if before is not None and before.children is not None and node.children is not None:
        node.children = before.children
    siblings[path[-1]] = node


def _children(node: Node) -> dict[bytes, Node]:
    if node.children is None:
        raise Uncertain
    return node.children


def _find(root: Node, path: Sequence[bytes]) -> Node | None:
    node: Node | None = root
    for name in path:
        if node is None or node.children is None:
            return None
        node = node.children.get(name)
    return node


def differences(expected: Node, root: str, *, idmap: IdMap, owners: bool, modes: bool) -> Iterator[str]:
    """Yield how a tree on disk differs from the expected one, sorted by path.

    Args:
        expected: The root of what is expected; of the root directory itself nothing is compared.
        root: The tree, with nothing mounted in it.
        idmap: The map that its files carry.
        owners: Whether owners are as the tars have them.
        modes: Whether permissions are.

    Yields:
        ``-/path`` for what is missing, ``+/path`` for what nobody brought, ``/path(mode:0644→0600)``.

    Raises:
        OSError: A file cannot be looked at.
    """
    comparison = _Comparison(Owners(idmap), owners=owners, modes=modes)
    fd = os.open(root, _DIRECTORY)
    try:
        yield from comparison.directory(fd, expected.children or {}, "")
    finally:
        os.close(fd)


class _Comparison:
    """One walk through both trees."""

    def __init__(self, owners_of: Owners, *, owners: bool, modes: bool) -> None:
        self._owners_of = owners_of
        self._with_owners = owners
        self._with_modes = modes

    def directory(self, fd: int, expected: dict[bytes, Node], path: str) -> Iterator[str]:
        found = {os.fsencode(name) for name in os.listdir(fd)}
        for name in sorted(found | expected.keys()):
            text = f"{path}/{os.fsdecode(name)}"
            node = expected.get(name)
            if name not in found:
                yield f"-{text}"
            elif node is None:
                yield f"+{text}"
            else:
                yield from self._file(fd, name, node, text)

    def _file(self, fd: int, name: bytes, node: Node, path: str) -> Iterator[str]:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if node.facts is not None:
            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
            if different := ",".join(self._fields(node.facts, status, target)):
                yield f"{path}({different})"
        if stat.S_ISDIR(status.st_mode) and node.children is not None:
            child = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                yield from self.directory(child, node.children, path)
            finally:
                os.close(child)

    def _fields(self, facts: Facts, status: os.stat_result, target: bytes) -> Iterator[str]:
        kind = stat.S_IFMT(status.st_mode)
        if kind != facts.type:
            yield f"filetype:{facts.type:o}→{kind:o}"
            return
        uid, gid = self._owners_of.of(status)
        if self._with_owners and uid != facts.uid:
            yield f"uid:{facts.uid}→{uid}"
        if self._with_owners and gid != facts.gid:
            yield f"gid:{facts.gid}→{gid}"
        if kind == stat.S_IFREG and status.st_size != facts.size:
            yield f"size:{facts.size}→{status.st_size}"
        mode = stat.S_IMODE(status.st_mode)
        if self._with_modes and kind != stat.S_IFLNK and mode != facts.mode:
            yield f"mode:{facts.mode:04o}→{mode:04o}"
        if target != facts.target:
            yield f"target:{os.fsdecode(facts.target)}→{os.fsdecode(target)}"


def _components(name: bytes) -> tuple[bytes, ...]:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            raise Uncertain
        if part not in {b"", b"."}:
            parts.append(part)
    return tuple(parts)


_WHITEOUT = WHITEOUT_PREFIX.encode()
_AUFS = AUFS_PREFIX.encode()
_OPAQUE = OPAQUE_MARKER.encode()
