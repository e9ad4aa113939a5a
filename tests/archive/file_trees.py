"""Trees of files for tests: made from a description, and described again, without the code under test."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hypothesis import strategies as st

__all__ = ["Node", "Tree", "build", "describe", "tree_pairs", "trees"]

_NS = 1_000_000_000


class Node(NamedTuple):
    """One file, as a test wants it."""

    kind: str
    """``"file"``, ``"dir"``, ``"link"`` (symbolic), ``"hard"``, ``"fifo"``, ``"char"`` or ``"block"``."""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime_ns: int = 1_700_000_000 * _NS
    content: bytes = b""
    """Of a file; or the target of a link."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] = (1, 3)


Tree = Mapping[bytes, Node]
"""Nodes by their path relative to the root; ``b""`` is the root."""


def build(
    root: str, tree: Tree, to_host: Callable[[int, int], tuple[int, int]] = lambda u, g: (u, g)
) -> None:
    """Make the files of a tree in an existing directory, owners mapped."""
    base = os.fsencode(root)
    for path in sorted(tree):
        _make(base, path, tree[path], to_host)
    for path in sorted(tree, reverse=True):
        node = tree[path]
        if node.kind != "hard":
            os.utime(base + b"/" + path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def _make(base: bytes, path: bytes, node: Node, to_host: Callable[[int, int], tuple[int, int]]) -> None:
    full = base + b"/" + path
    match node.kind:
        case "file":
            with open(full, "wb") as file:
                file.write(node.content)
        case "dir":
            os.makedirs(full, exist_ok=True)
        case "link":
            os.symlink(node.content, full)
        case "hard":
            os.link(base + b"/" + node.content, full, follow_symlinks=False)
            return
        case "fifo":
            os.mkfifo(full)
        case kind:
            form = stat.S_IFCHR if kind == "char" else stat.S_IFBLK
            os.mknod(full, form | 0o600, os.makedev(*node.device))
    os.chown(full, *to_host(*node.owner), follow_symlinks=False)
    if node.kind != "link":
        os.chmod(full, node.mode)
    for name, value in node.xattrs:
        os.setxattr(full, name, value, follow_symlinks=False)


def describe(
    root: str,
    to_container: Callable[[int, int], tuple[int, int]] = lambda u, g: (u, g),
    *,
    directory_times: bool = True,
) -> dict[bytes, tuple[object, ...]]:
    """Return everything that a layer has to keep of a tree, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    links: dict[int, bytes] = {}
    base = os.fsencode(root)
    found[b""] = _describe(base, b"", links, to_container, directory_times=directory_times)
    for above, names, others in os.walk(base):
        names.sort()
        for name in sorted([*names, *others]):
            path = os.path.relpath(os.path.join(above, name), base)
            found[path] = _describe(base, path, links, to_container, directory_times=directory_times)
    return found


def _describe(
    base: bytes,
    path: bytes,
    links: dict[int, bytes],
    to_container: Callable[[int, int], tuple[int, int]],
    *,
    directory_times: bool,
) -> tuple[object, ...]:
    full = base + b"/" + path
    status = os.lstat(full)
    is_directory = stat.S_ISDIR(status.st_mode)
    content: object = None
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as file:
            content = file.read()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(full)
    elif not is_directory:
        content = status.st_rdev
    xattrs = {
        name: os.getxattr(full, name, follow_symlinks=False)
        for name in os.listxattr(full, follow_symlinks=False)
        if not name.startswith(("trusted.overlay.", "security.selinux"))
    }
    return (
        oct(status.st_mode),
        to_container(status.st_uid, status.st_gid),
        status.st_mtime_ns if directory_times or not is_directory else None,
        content,
        xattrs,
        None if is_directory else links.setdefault(status.st_ino, path),
    )


_DEPTH = 2
_names = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"etc", b"usr", b"-", b"x y", b"\xff\xfe", "ä".encode(), b"n" * 101, b"m" * 250]
    ),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: (
            not {b"/"[0], 0} & set(name) and name not in (b".", b"..") and not name.startswith(b".wh.")
        )
    ),
)
_modes = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o6711, 0o000, 0o444])
_owners = st.tuples(st.sampled_from([0, 1, 33, 1000, 65534]), st.sampled_from([0, 5, 100, 65534]))
_times = st.integers(min_value=-(1 << 31) * _NS, max_value=((1 << 32) - 1) * _NS)
_user_xattrs = st.lists(
    st.tuples(
        st.sampled_from(["user.a", "user.ünicode", "trusted.t", "security.other"]),
        st.binary(max_size=40),
    ),
    max_size=2,
    unique_by=lambda pair: pair[0],
).map(tuple)
_CAPABILITY_2 = bytes.fromhex("0100000200200000000000000000000000000000")
_file_xattrs = st.one_of(_user_xattrs, st.just((("security.capability", _CAPABILITY_2),)))


@st.composite
def _nodes(draw: st.DrawFn, above: bytes, depth: int, tree: dict[bytes, Node]) -> None:
    for name in draw(st.lists(_names, min_size=1 if depth == _DEPTH else 0, max_size=5, unique=True)):
        path = above + b"/" + name if above else name
        kinds = ["file", "file", "link", "fifo", "char", "block"] + (["dir"] * 3 if depth else [])
        linkable = [
            other for other, node in tree.items() if node.kind in ("file", "fifo", "link") and other < path
        ]
        kind = draw(st.sampled_from(kinds + (["hard"] if linkable else [])))
        if kind == "hard":
            tree[path] = Node("hard", content=draw(st.sampled_from(linkable)))
            continue
        content = b""
        if kind == "file":
            content = draw(
                st.one_of(st.binary(max_size=60), st.sampled_from([b"x" * 511, b"y" * 512, b"z" * 70_000]))
            )
        elif kind == "link":
            content = draw(st.sampled_from([b"a", b"../b", b"/etc", b"t" * 150, b"\xff", "ö".encode()]))
        xattrs = {"file": _file_xattrs, "dir": _user_xattrs}.get(kind, st.just(()))
        device = draw(st.sampled_from([(1, 3), (8, 1), (4095, 1048575)]))
        tree[path] = Node(kind, draw(_modes), draw(_owners), draw(_times), content, draw(xattrs), device)
        if kind == "dir":
            draw(_nodes(path, depth - 1, tree))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Return trees with every kind of file, odd names, owners, times and extended attributes."""
    tree = {b"": Node("dir", draw(_modes), draw(_owners), draw(_times), xattrs=draw(_user_xattrs))}
    draw(_nodes(b"", _DEPTH, tree))
    return tree


@st.composite
def tree_pairs(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Return two trees that have much in common."""
    old = draw(trees())
    new = {path: node for path, node in draw(trees()).items() if path == b"" or draw(st.booleans())}
    for path, node in old.items():
        match draw(st.sampled_from(["keep", "keep", "keep", "change", "drop"])):
            case "keep":
                new[path] = node
            case "change" if node.kind not in ("hard", "link"):
                new[path] = node._replace(mode=draw(_modes), mtime_ns=draw(_times), xattrs=draw(_user_xattrs))
                if node.kind not in ("file", "dir"):
                    new[path] = new[path]._replace(xattrs=())
    return old, _rooted(new)


def _rooted(tree: Tree) -> Tree:
    """Leave out what has no directory to lie in, and hard links to what is not there."""
    kept: dict[bytes, Node] = {}
    for path in sorted(tree):
        node = tree[path]
        above = path.rpartition(b"/")[0]
        if path and (above not in kept or kept[above].kind != "dir"):
            continue
        if node.kind == "hard" and (node.content not in kept or kept[node.content].kind in ("dir", "hard")):
            continue
        kept[path] = node
    return kept
