"""A small tree with one of everything that a file system keeps, and a full account of a tree.

The account is in container IDs and decodes extended attributes by itself, so that it can judge
the code that moves files between ID maps.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from hostspec.idmap import IdMap

FILE_TIMES = (1_400_000_000_123_456_789, 1_300_000_000_987_654_321)
"""Access and modification of each file, in nanoseconds."""

DIRECTORY_TIMES = (1_500_000_000_111_111_111, 1_200_000_000_999_999_999)
"""Access and modification of each directory, in nanoseconds."""

CAPABILITY_SETS = struct.pack("<IIII", 1 << 13, 0, 0, 0)
"""Permitted and inheritable sets that grant CAP_NET_RAW."""

_ACL_USER, _ACL_GROUP, _NO_ID = 0x02, 0x08, 0xFFFF_FFFF


def capability(root_id: int | None = None) -> bytes:
    """Return ``security.capability``, version 3 with a root ID, else version 2."""
    if root_id is None:
        return struct.pack("<I", 0x0200_0001) + CAPABILITY_SETS
    return struct.pack("<I", 0x0300_0001) + CAPABILITY_SETS + struct.pack("<I", root_id)


def acl(users: dict[int, int], groups: dict[int, int]) -> bytes:
    """Return a POSIX ACL that grants users and groups their permission bits, as its attribute holds it."""
    entries = [
        (0x01, 7, _NO_ID),
        *((_ACL_USER, bits, number) for number, bits in sorted(users.items())),
        (0x04, 5, _NO_ID),
        *((_ACL_GROUP, bits, number) for number, bits in sorted(groups.items())),
        (0x10, 7, _NO_ID),
        (0x20, 4, _NO_ID),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def plant(root: str, idmap: IdMap, *, ids: tuple[int, int, int] = (0, 33, 1000)) -> None:
    """Make the tree in an existing directory.

    Args:
        root: The directory, empty.
        idmap: The map that the files are to carry.
        ids: Three different container IDs that the map covers for UIDs and GIDs.
    """
    zero, one, two = ids

    def at(*names: str) -> str:
        return os.path.join(root, *names)

    def own(path: str, uid: int, gid: int) -> None:
        os.chown(path, *idmap.to_host(uid, gid), follow_symlinks=False)

    for name in ("bin", "empty", "etc", "etc/deep", "shared", "x"):
        os.mkdir(at(name))
        own(at(name), zero, two)
    for name, content in (
        ("bin/su", b"#!su"),
        ("bin/wall", b"#!wall"),
        ("bin/ping", b"#!ping"),
        ("bin/ping3", b"#!ping3"),
        ("etc/acl", b"with an ACL"),
        ("etc/deep/attributes", b"with attributes"),
        ("etc/deep/large", bytes(range(256)) * 4096),
        ("e", b"one character"),
        (os.fsdecode(b"x/not-utf-8-\xff\xfe"), b"bytes"),
    ):
        with open(at(name), "wb") as file:
            file.write(content)
        own(at(name), one, two)
    with open(at("x/sparse"), "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"in the middle")
    os.mkfifo(at("x/fifo"))
    os.mknod(at("x/null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at("x/disk"), stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(at("x"))  # the address of a socket is short
        listener.bind("socket")
        os.chdir(here)
    os.symlink("../bin/su", at("x/link"))
    os.symlink("/nowhere/at all", at("x/dangling"))
    for name in ("x/sparse", "x/fifo", "x/null", "x/disk", "x/socket", "x/link", "x/dangling"):
        own(at(name), two, one)
    os.link(at("e"), at("etc/linked"))
    os.link(at("e"), at("x/linked"))
    os.link(at("x/link"), at("etc/linked-link"), follow_symlinks=False)

    os.chmod(at("bin/su"), 0o4755)
    os.chmod(at("bin/wall"), 0o2755)
    os.chmod(at("shared"), 0o3775)
    uids, gids = idmap.uids, idmap.gids
    granted = acl({uids.to_host(one): 6, uids.to_host(two): 4}, {gids.to_host(one): 5, gids.to_host(two): 1})
    os.setxattr(at("etc/acl"), "system.posix_acl_access", granted)
    os.setxattr(at("etc"), "system.posix_acl_access", granted)
    os.setxattr(at("etc"), "system.posix_acl_default", granted)
    os.setxattr(at("bin/ping"), "security.capability", capability())
    os.setxattr(at("bin/ping3"), "security.capability", capability(uids.to_host(one)))
    for name in ("user.note", "trusted.note", "security.note"):
        os.setxattr(at("etc/deep/attributes"), name, b"kept \0 whole")
        os.setxattr(at("etc/deep"), name, b"")
    own(root, zero, one)
    os.chmod(root, 0o751)
    stamp(root)


def stamp(root: str) -> None:
    """Give every file and directory its times."""
    for directory, subdirectories, files in os.walk(root, topdown=False):
        for name in files:
            os.utime(os.path.join(directory, name), ns=FILE_TIMES, follow_symlinks=False)
        for name in subdirectories:
            path = os.path.join(directory, name)
            times = FILE_TIMES if os.path.islink(path) else DIRECTORY_TIMES
            os.utime(path, ns=times, follow_symlinks=False)
    os.utime(root, ns=DIRECTORY_TIMES)


class Account(NamedTuple):
    """Everything that a file system keeps about one file, but its inode number and ctime."""

    mode: int
    owner: tuple[int, int]
    device: int
    size: int
    times: tuple[int, int]
    content: str
    attributes: tuple[tuple[str, object], ...]
    names: tuple[str, ...]


def account(root: str, idmap: IdMap) -> dict[str, Account]:
    """Tell everything about every file of a tree, IDs as a container under ``idmap`` sees them."""
    names: dict[tuple[int, int], list[str]] = defaultdict(list)
    for path in _paths(root):
        found = os.lstat(root + path)
        if not stat.S_ISDIR(found.st_mode):
            names[found.st_dev, found.st_ino].append(path)
    return {path: _account(root, path, idmap, names) for path in _paths(root)}


def _account(root: str, path: str, idmap: IdMap, names: dict[tuple[int, int], list[str]]) -> Account:
    found = os.lstat(root + path)
    attributes = [
        (name, _decoded(name, os.getxattr(root + path, name, follow_symlinks=False), idmap))
        for name in os.listxattr(root + path, follow_symlinks=False)
        # XFS shows ACLs a second time, in a form of its own.
        if not name.startswith("trusted.SGI_ACL_")
    ]
    # Reading a link is what changes its access time.
    accessed = 0 if stat.S_ISLNK(found.st_mode) else found.st_atime_ns
    return Account(
        mode=found.st_mode,
        owner=idmap.to_container(found.st_uid, found.st_gid),
        device=found.st_rdev,
        size=0 if stat.S_ISDIR(found.st_mode) else found.st_size,
        times=(accessed, found.st_mtime_ns),
        content=_content(root + path, found.st_mode),
        attributes=tuple(sorted(attributes)),
        names=tuple(sorted(names.get((found.st_dev, found.st_ino), ()))),
    )


def _paths(root: str) -> Iterator[str]:
    yield "/"
    pending = [""]
    while pending:
        directory = pending.pop()
        descriptor = os.open(root + directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        with os.scandir(descriptor) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                path = f"{directory}/{entry.name}"
                yield path
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
        os.close(descriptor)


def _content(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return ""
    with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decoded(name: str, value: bytes, idmap: IdMap) -> object:
    if name.startswith("system.posix_acl_"):
        to_container = {_ACL_USER: idmap.uids.to_container, _ACL_GROUP: idmap.gids.to_container}
        entries = [
            (tag, bits, to_container.get(tag, int)(number))
            for tag, bits, number in struct.iter_unpack("<HHI", value[4:])
        ]
        # The order among users, and among groups, says nothing.
        return tuple(sorted(entries))
    if name == "security.capability" and len(value) == 24:
        root_id = idmap.uids.to_container(struct.unpack("<I", value[20:])[0])
        # What the root of all namespaces owns is told as version 2.
        return value[4:20] + (struct.pack("<I", root_id) if root_id else b"")
    if name == "security.capability":
        return value[4:20]
    return value
