"""Comparing two files as layers see them."""

from __future__ import annotations

import os
import stat
from io import FileIO

from hostspec.archive.whiteouts import is_carried_xattr
from hostspec.idmap import IdMap
from hostspec.idshift import IdShift

__all__ = ["Entry", "Owners", "carried_xattrs", "differ", "same_content"]

_MAX_OWNERS_KEPT = 4096
_CHUNK = 1 << 18
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Owners:
    """Answers which container IDs the files of a tree have."""

    def __init__(self, idmap: IdMap) -> None:
        """Take the map that the tree's files carry."""
        self._idmap = idmap
        self._maps = bool(idmap)
        self._shift = IdShift(idmap, IdMap(), squash=True)
        self._known: dict[tuple[int, int], tuple[int | str, int | str]] = {}

    def of(self, status: os.stat_result) -> tuple[int | str, int | str]:
        """Return the owner as the container sees it; what it cannot see stands for itself."""
        pair = (status.st_uid, status.st_gid)
        if not self._maps:
            return pair
        found = self._known.get(pair)
        if found is None:
            uid = self._idmap.uids.find_container(pair[0])
            gid = self._idmap.gids.find_container(pair[1])
            found = (
                f"host {pair[0]}" if uid is None else uid,
                f"host {pair[1]}" if gid is None else gid,
            )
            if len(self._known) >= _MAX_OWNERS_KEPT:
                self._known.clear()
            self._known[pair] = found
        return found

    def xattr(self, name: str, value: bytes) -> bytes:
        """Return the value of an extended attribute as the container sees it."""
        return self._shift.xattr(name, value) if self._maps else value


class Entry:
    """A name in an open directory of a tree."""

    __slots__ = ("fd", "name", "owners", "status")

    def __init__(self, fd: int, name: str, status: os.stat_result, owners: Owners) -> None:
        """Speak of ``name`` in ``fd``; the name is ``.`` for the directory itself."""
        self.fd = fd
        self.name = name
        self.status = status
        self.owners = owners

    @property
    def file_type(self) -> int:
        """What it is itself, as in octal modes (``S_IFREG``, …)."""
        return stat.S_IFMT(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is one itself, no link to one."""
        return stat.S_ISDIR(self.status.st_mode)

    def path(self) -> str:
        """Return a path by which functions reach it that take no directory descriptor."""
        return f"/proc/self/fd/{self.fd}/{self.name}"


def differ(new: Entry, old: Entry) -> bool:
    """Tell whether a layer has to say that ``new`` took the place of ``old``."""
    one, other = new.status, old.status
    if one.st_mode != other.st_mode or new.owners.of(one) != old.owners.of(other):
        return True
    if not new.is_directory:
        if one.st_ino == other.st_ino and one.st_dev == other.st_dev:
            return False
        if one.st_mtime_ns != other.st_mtime_ns or one.st_size != other.st_size:
            return True
        if one.st_rdev != other.st_rdev:
            return True
        if stat.S_ISLNK(one.st_mode) and _target(new) != _target(old):
            return True
    return carried_xattrs(new) != carried_xattrs(old)


def carried_xattrs(entry: Entry) -> dict[str, bytes]:
    """Return the extended attributes that a layer carries, as the container sees them."""
    path = entry.path()
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        name: entry.owners.xattr(name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if is_carried_xattr(name)
    }


def same_content(new: Entry, old: Entry) -> bool:
    """Tell whether two files, equal in size and all else, hold the same bytes."""
    if not stat.S_ISREG(new.status.st_mode):
        return True
    with _opened(new) as one, _opened(old) as other:
        while True:
            ours = one.read(_CHUNK)
            if ours != other.read(_CHUNK):
                return False
            if not ours:
                return True


def _opened(entry: Entry) -> FileIO:
    return FileIO(os.open(entry.name, _READ, dir_fd=entry.fd))


def _target(entry: Entry) -> str:
    return os.readlink(entry.name, dir_fd=entry.fd)
