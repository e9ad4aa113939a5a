"""Packing changes of a tree into a layer tar.

What is written is what Go's ``archive/tar`` would write for the same headers: ustar, with a PAX extended
header only for what does not fit (long or non-ASCII names, large numbers, fractions of seconds, extended
attributes). Two runs over the same tree give the same bytes.

Unlike the Go library, times keep their nanoseconds, and all extended attributes that an image may
carry are carried (:func:`~hostspec.archive.whiteouts.is_carried_xattr`), not only some. Holes
of sparse files are written as zeros, which every reader understands.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from hostspec.archive.changes import compare_trees
from hostspec.archive.descent import Descent
from hostspec.archive.encode import EntryHeader, encode_header
from hostspec.archive.headers import BLOCK, Kind
from hostspec.archive.layer_stream import Content, LayerStream, Part, Parts
from hostspec.archive.log import log
from hostspec.archive.whiteouts import WHITEOUT_PREFIX, is_carried_xattr
from hostspec.errors import DriverFailed
from hostspec.idmap import IdMap
from hostspec.idshift import IdShift
from hostspec.values import Change, ChangeKind

__all__ = ["pack", "pack_tree"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_END = bytes(2 * BLOCK)
_OPENED = frozenset({stat.S_IFREG, stat.S_IFDIR})
_NO_LONGER_THAT = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


def pack(root: str, changes: Iterable[Change], *, idmap: IdMap) -> LayerStream:
    """Return an uncompressed layer tar with these changes, made while it is read.

    Args:
        root: The tree as it is now.
        changes: What to pack, from any iterable, in the order in which it shall be in the tar.
        idmap: The map that the tree's files carry; owners in the tar are container IDs.

    Returns:
        A readable binary stream that is a context manager. Its reads fill what they are given,
        except at the end. They raise IdNotMapped, DriverFailed (also when a file shrinks while it is read),
        and what ``changes`` raises.

    Raises:
        DriverFailed: ``root`` cannot be opened.
    """
    held = ExitStack()
    try:
        packer = _Packer(root, idmap, held)
    except OSError as error:
        raise DriverFailed(f"pack {root}", error) from error
    return LayerStream(packer.parts(changes), held)


def pack_tree(root: str, *, idmap: IdMap) -> LayerStream:
    """Return a whole tree as an uncompressed layer tar, like :func:`pack`.

    The root directory is in it too, so that its owner, mode and attributes are kept.
    """
    changes = compare_trees(root, None, new_map=idmap, old_map=IdMap())
    return pack(root, _with_root(changes), idmap=idmap)


def _with_root(changes: Iterator[Change]) -> Iterator[Change]:
    yield Change("/", ChangeKind.ADD)
    for change in changes:
        if change.path != "/":
            yield change


class _Packer:
    """Makes headers for the files of one tree."""

    def __init__(self, root: str, idmap: IdMap, held: ExitStack) -> None:
        self._descent = held.enter_context(Descent(root))
        self._shift = IdShift(idmap, IdMap())
        self._maps = bool(idmap)
        self._linked: dict[tuple[int, int], tuple[bytes, int]] = {}

    def parts(self, changes: Iterable[Change]) -> Parts:
        """Yield the tar: each header with what follows it, and the end."""
        for change in changes:
            path = change.path
            try:
                if change.kind is ChangeKind.DELETE:
                    part: Part = _whiteout(path), None
                else:
                    part = self._seen(path, getattr(change, "file_type", 0))
            except FileNotFoundError:
                log.warning("%s: has gone while the layer was packed", path)
                continue
            except OSError as error:
                raise DriverFailed(f"pack {path}", error) from error
            yield part
        yield _END, None

    def _seen(self, path: str, file_type: int) -> Part:
        """Do :meth:`_entry`, again if something else has taken the place of what was seen."""
        try:
            return self._entry(path, file_type)
        except OSError as error:
            if not file_type or error.errno not in _NO_LONGER_THAT:
                raise
            return self._entry(path, 0)

    def _entry(self, path: str, file_type: int) -> Part:
        """Return the header of a file, nothing if it is left out, and its content if there is some.

        Args:
            path: Absolute within the tree.
            file_type: What it seems to be, as in octal modes, or 0.
        """
        above, _, name = path.rpartition("/")
        directory = self._descent.enter(above)
        if name.startswith(WHITEOUT_PREFIX):
            log.warning("%s: is left out, since its name would delete another file", path)
            return b"", None
        if file_type == stat.S_IFREG:
            return self._file(path, os.open(name, _READ, dir_fd=directory))
        if file_type == stat.S_IFDIR:
            fd = self._descent.enter_child(path) if name else directory
            return encode_header(self._header(path, fd, "", os.fstat(fd))), None
        status = os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
        found = stat.S_IFMT(status.st_mode)
        if found in _OPENED:
            return self._entry(path, found)
        if found == stat.S_IFSOCK:
            log.info("%s: is left out, since layers hold no sockets", path)
            return b"", None
        return encode_header(self._header(path, directory, name, status)), None

    def _file(self, path: str, fd: int) -> Part:
        """Return header and content of a file; takes over its descriptor."""
        content = None
        try:
            header = self._header(path, fd, "", os.fstat(fd))
            encoded = encode_header(header)
            if header.size:
                content = Content(fd, header.size, path)
        finally:
            if content is None:
                os.close(fd)
        return encoded, content

    def _header(self, path: str, fd: int, name: str, status: os.stat_result) -> EntryHeader:
        """Return the header of a file: of ``fd`` itself, or of ``name`` in that directory."""
        mode = status.st_mode
        uid, gid = status.st_uid, status.st_gid
        if self._maps:
            uid, gid = self._shift.owner(uid, gid, path)
        header = EntryHeader(
            name=os.fsencode(path.lstrip("/")),
            kind=_KINDS[stat.S_IFMT(mode)],
            mode=stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns,
            device=status.st_rdev,
        )
        if stat.S_ISDIR(mode):
            header.name = header.name + b"/" if header.name else b"./"
        elif status.st_nlink > 1 and (first := self._first_link(header.name, status)) is not None:
            header.kind = Kind.HARD_LINK
            header.link = first
            return header
        elif stat.S_ISREG(mode):
            header.size = status.st_size
        elif stat.S_ISLNK(mode):
            header.link = os.readlink(os.fsencode(name), dir_fd=fd)
        header.xattrs = self._xattrs(path, fd, name)
        return header

    def _first_link(self, name: bytes, status: os.stat_result) -> bytes | None:
        """Return under which name a file is in the tar already, and forget it with its last link."""
        inode = (status.st_dev, status.st_ino)
        known = self._linked.get(inode)
        if known is None:
            self._linked[inode] = (name, status.st_nlink - 1)
            return None
        first, left = known
        if left > 1:
            self._linked[inode] = (first, left - 1)
        else:
            del self._linked[inode]
        return first

    def _xattrs(self, path: str, fd: int, name: str) -> dict[str, bytes]:
        """Return the extended attributes that the tar carries, IDs in them as the container sees them."""
        target: int | str = fd if not name else f"/proc/self/fd/{fd}/{name}"
        follow = not name
        carried = {}
        for key in _list_xattrs(target, follow=follow):
            if is_carried_xattr(key):
                value = os.getxattr(target, key, follow_symlinks=follow)
                carried[key] = self._shift.xattr(key, value, path) if self._maps else value
        return carried


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
}


def _list_xattrs(target: int | str, *, follow: bool) -> list[str]:
    try:
        return sorted(os.listxattr(target, follow_symlinks=follow))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _whiteout(path: str) -> bytes:
    """Return the member that says that a path is gone; it has no date, so that two runs agree."""
    above, _, name = path.rpartition("/")
    marker = f"{above}/{WHITEOUT_PREFIX}{name}".lstrip("/")
    return encode_header(EntryHeader(name=os.fsencode(marker), kind=Kind.FILE))
