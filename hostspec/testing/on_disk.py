"""Trees on disk: made, changed and read by plain system calls.

The back door of the suite: what a driver's mounts show is looked at without anything
that drivers or fallbacks use. Owners on disk are host IDs under a map, as for any layer.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from socket import AF_UNIX, SOCK_STREAM
from socket import socket as make_socket
from typing import NamedTuple

from hostspec.idmap import IdMap, IdRanges
from hostspec.testing.id_xattrs import decode_xattr, encode_xattr
from hostspec.testing.tree import Entry, Kind, Tree

__all__ = ["Times", "change_tree", "count_files", "make_tree", "read_times", "read_tree"]

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}
_FORMATS = {kind: bits for bits, kind in _KINDS.items()}

_COMPARED_XATTRS = ("user.", "trusted.", "security.", "system.posix_acl_")
_MACHINES_OWN_XATTRS = frozenset({"security.selinux", "security.ima", "security.evm"})
_SHOWN_TWICE = ("trusted.SGI_ACL_",)
"""XFS shows the superuser an ACL under this name too."""

_SPARSE_FROM_BYTES = 1 << 18
"""Smaller files are not asked whether they are sparse: file systems round up."""


class Times(NamedTuple):
    """When a file was last changed, in nanoseconds since the epoch."""

    content: int
    """When its content was."""
    inode: int
    """When anything about it was, the number of its links too."""
    names: int
    """How many it has, in whatever layers."""

    def is_touched_since(self, before: Times) -> bool:
        """Tell whether a file was changed, and not only given a name in another layer, or lost one there."""
        has_one_name = self.names == before.names == 1
        return self.content != before.content or (has_one_name and self.inode != before.inode)


def make_tree(root: str, tree: Tree, idmap: IdMap) -> None:
    """Make ``tree`` in the existing, empty directory ``root``, under ``idmap``."""
    _change(root, None, tree, idmap, frozenset())


def change_tree(
    root: str, older: Tree, newer: Tree, idmap: IdMap, *, recreated: Collection[str] = ()
) -> None:
    """Turn ``older``, which is at ``root``, into ``newer``, touching nothing that is the same.

    Args:
        root: The directory that holds the tree.
        older: What is there.
        newer: What is to be there.
        idmap: The map of both.
        recreated: Paths to delete with all below them first, and to make again if ``newer`` has them.
    """
    _change(root, older, newer, idmap, frozenset(recreated))


def read_tree(root: str, idmap: IdMap) -> Tree:
    """Read everything below ``root``, and ``root`` itself, as a container with ``idmap`` sees it."""
    entries: dict[str, Entry] = {}
    inodes: dict[tuple[int, int], set[str]] = {}
    for path in _paths_below(root):
        found = os.lstat(_at(root, path))
        entries[path] = _read_entry(_at(root, path), found, idmap)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            inodes.setdefault((found.st_dev, found.st_ino), set()).add(path)
    return Tree(entries, links=(paths for paths in inodes.values() if len(paths) > 1))


def read_times(root: str) -> dict[str, Times]:
    """Return when each path was last changed."""
    found = ((path, os.lstat(_at(root, path))) for path in _paths_below(root))
    return {
        path: Times(each.st_mtime_ns, each.st_ctime_ns, 1 if stat.S_ISDIR(each.st_mode) else each.st_nlink)
        for path, each in found
    }


def count_files(root: str) -> int:
    """Count what is below a directory, zero when it is not there."""
    return sum(1 for _ in _paths_below(root)) if os.path.isdir(root) else 0


def _paths_below(root: str) -> Iterator[str]:
    yield "/"
    pending = ["/"]
    while pending:
        inside = pending.pop()
        with os.scandir(_at(root, inside)) as listing:
            for each in listing:
                path = f"{inside.rstrip('/')}/{each.name}"
                yield path
                if each.is_dir(follow_symlinks=False):
                    pending.append(path)


def _at(root: str, path: str) -> str:
    return root if path == "/" else root + path


def _read_entry(place: str, found: os.stat_result, idmap: IdMap) -> Entry:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    content, sparse = b"", False
    if kind is Kind.SYMLINK:
        content = os.fsencode(os.readlink(place))
    elif kind is Kind.FILE:
        with open(place, "rb") as opened:
            content = opened.read()
        sparse = found.st_size >= _SPARSE_FROM_BYTES and found.st_blocks * 512 < found.st_size // 2
    is_device = kind in {Kind.CHARACTER, Kind.BLOCK}
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=_container_id(idmap.uids, found.st_uid),
        gid=_container_id(idmap.gids, found.st_gid),
        mtime_ns=found.st_mtime_ns,
        content=content,
        device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if is_device else (0, 0),
        xattrs=tuple(_read_xattrs(place, idmap)),
        sparse=sparse,
    )


def _container_id(ranges: IdRanges, number: int) -> int:
    found = ranges.find_container(number)
    return -1 - number if found is None else found


def _read_xattrs(place: str, idmap: IdMap) -> Iterator[tuple[str, bytes]]:
    for name in sorted(os.listxattr(place, follow_symlinks=False)):
        if name in _MACHINES_OWN_XATTRS or name.startswith(_SHOWN_TWICE):
            continue
        if name.startswith(_COMPARED_XATTRS):
            value = os.getxattr(place, name, follow_symlinks=False)
            yield name, decode_xattr(name, value, idmap)


def _change(root: str, older: Tree | None, newer: Tree, idmap: IdMap, recreated: frozenset[str]) -> None:
    there = older or Tree({})
    gone = recreated.union(path for path in there if _is_gone(path, there, newer)) - {"/"}
    for path in sorted(gone & {*there}):
        _delete(_at(root, path))
    there = there.without(*gone)
    groups = {path: group for group in newer.links for path in group}
    first_names: dict[frozenset[str], str] = {}
    for path, entry in newer.items():
        place = _at(root, path)
        before = there.get(path)
        group = groups.get(path)
        if group is not None and (first_name := first_names.setdefault(group, path)) != path:
            if not _stays_linked(group, there, newer):
                with suppress(FileNotFoundError):
                    os.unlink(place)
                os.link(_at(root, first_name), place, follow_symlinks=False)
            continue
        if before is None:
            _create(place, entry)
        if before != entry or older is None:
            _bring_up_to_date(place, before, entry, idmap)
    for path, entry in newer.items():
        place = _at(root, path)
        if os.lstat(place).st_mtime_ns != entry.mtime_ns:
            os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _is_gone(path: str, older: Tree, newer: Tree) -> bool:
    if path not in newer:
        return True
    before, after = older[path], newer[path]
    if before != after and any(path in group and not _is_one(group, newer) for group in older.links):
        # Writing to it would write to its other names.
        return True
    in_place = before.kind is after.kind and before.device == after.device
    return not in_place or (after.kind is Kind.SYMLINK and before.content != after.content)


def _is_one(group: frozenset[str], tree: Tree) -> bool:
    left = {path for path in group if path in tree}
    return len(left) < 2 or any(left <= each for each in tree.links)


def _stays_linked(group: frozenset[str], older: Tree, newer: Tree) -> bool:
    """Tell whether nothing about an inode changes; where it does, some mounts split what is linked."""
    return any(group <= each for each in older.links) and all(
        older.get(path) == newer[path] for path in group
    )


def _delete(place: str) -> None:
    # What lies below a directory that is gone may be gone with it.
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(place).st_mode):
            shutil.rmtree(place)
        else:
            os.unlink(place)


def _create(place: str, entry: Entry) -> None:
    match entry.kind:
        case Kind.DIRECTORY:
            os.mkdir(place)
        case Kind.SYMLINK:
            os.symlink(entry.content, os.fsencode(place))
        case Kind.SOCKET:
            _create_socket(place)
        case kind:
            os.mknod(place, _FORMATS[kind] | 0o600, os.makedev(*entry.device))


def _create_socket(place: str) -> None:
    # A socket's address is at most 107 bytes long; a directory's descriptor is always short.
    parent, name = os.path.split(place)
    descriptor = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with closing(make_socket(AF_UNIX, SOCK_STREAM)) as listening:
            listening.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _bring_up_to_date(place: str, before: Entry | None, entry: Entry, idmap: IdMap) -> None:
    """Make an entry what it is to be; its time comes last of all, by the caller."""
    if entry.kind is Kind.FILE and (before is None or before.content != entry.content):
        _write(place, entry)
    # What is new has ACLs that nobody asked for, where its directory has a default ACL.
    for name in {name for name, _ in _read_xattrs(place, idmap)} - dict(entry.xattrs).keys():
        os.removexattr(place, name, follow_symlinks=False)
    # A new owner clears set-ID bits and capabilities, so these come after it.
    os.chown(place, *idmap.to_host(entry.uid, entry.gid), follow_symlinks=False)
    if entry.kind is not Kind.SYMLINK:
        os.chmod(place, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(place, name, encode_xattr(name, value, idmap), follow_symlinks=False)


def _write(place: str, entry: Entry) -> None:
    with open(place, "wb") as opened:
        if not entry.sparse:
            opened.write(entry.content)
            return
        end_of_hole = len(entry.content) - len(entry.content.lstrip(b"\0"))
        opened.seek(end_of_hole)
        opened.write(entry.content[end_of_hole:])
