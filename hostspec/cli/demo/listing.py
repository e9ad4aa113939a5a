"""What a tree looks like, and whether a mapped one looks as it must."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hostspec.errors import HostspecError
from hostspec.idmap import IdMap

__all__ = ["CheckFailed", "Entry", "check", "listing"]


class CheckFailed(HostspecError):
    """A mounted container does not show what it must; a bug of hostspec or of a driver."""


class Entry(NamedTuple):
    """What is compared of a file."""

    uid: int
    gid: int
    mode: int
    """Type and permissions, as in ``st_mode``."""
    content: str
    """SHA-256 of a regular file, target of a symbolic link, number of a device, else ``""``."""


def listing(root: str, *, with_content: bool = True) -> dict[str, Entry]:
    """Read a whole tree, by path relative to ``root``; the root itself is ``""``.

    Args:
        root: Where it is mounted.
        with_content: Read the files too; otherwise ``content`` is empty for all of them.
    """
    return {path[len(root) + 1 :]: _entry(path, with_content=with_content) for path in _every_path(root)}


def check(
    root: str,
    expected: Mapping[str, Entry],
    idmap: IdMap,
    *,
    squash: bool = False,
    with_content: bool = True,
) -> None:
    """Compare a mounted tree with the unmapped one.

    Args:
        root: Where the mapped tree is mounted.
        expected: The unmapped tree.
        idmap: The map under which ``root`` must show it.
        squash: Every file must have the one ID that the map has.
        with_content: Compare the files' content, not only what they are and whose.

    Raises:
        CheckFailed: One is missing, is too many, or differs; names it.
    """
    found = listing(root, with_content=with_content)
    if surplus := sorted(found.keys() ^ expected.keys()):
        raise CheckFailed(f"{root}: {surplus[0]} is in only one of the two trees")
    for path, entry in expected.items():
        uid, gid = idmap.root() if squash else idmap.to_host(entry.uid, entry.gid)
        wanted = entry._replace(uid=uid, gid=gid, content=entry.content if with_content else "")
        if found[path] != wanted:
            raise CheckFailed(f"{os.path.join(root, path)}: is {found[path]}, must be {wanted}")


def _every_path(root: str) -> Iterator[str]:
    yield root
    for directory, subdirectories, files in os.walk(root):
        for name in (*subdirectories, *files):
            yield os.path.join(directory, name)


def _entry(path: str, *, with_content: bool) -> Entry:
    found = os.lstat(path)
    if not with_content:
        content = ""
    elif stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    else:
        content = str(found.st_rdev or "")
    return Entry(found.st_uid, found.st_gid, found.st_mode, content)
