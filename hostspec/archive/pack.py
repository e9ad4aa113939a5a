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
from hostspec.archive.encode import EntryHeader, encode_header
from hostspec.archive.headers import BLOCK, Kind
from hostspec.archive.layer_stream import Content, LayerStream, Parts
from hostspec.archive.log import log
from hostspec.archive.whiteouts import WHITEOUT_PREFIX, is_carried_xattr
from hostspec.errors import DriverFailed
from hostspec.idmap import IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.resolve import open_in_root
from hostspec.values import Change, ChangeKind

__all__ = ["pack", "pack_tree"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_END = bytes(2 * BLOCK)


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
        self._root = os.open(root, _DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, self._root)
        held.callback(self._leave)
        self._shift = IdShift(idmap, IdMap())
        self._maps = bool(idmap)
        self._above: tuple[str, int] = ("", self._root)
        self._linked: dict[tuple[int, int], tuple[bytes, int]] = {}

    def parts(self, changes: Iterable[Change]) -> Parts:
        """Yield the tar: bytes, and files whose content, padded to whole blocks, comes at that place."""
        for change in changes:
            try:
                if change.kind is ChangeKind.DELETE:
                    yield _whiteout(change.path)
                else:
                    yield from self._entry(change.path)
            except FileNotFoundError:
                log.warning("%s: has gone while the layer was packed", change.path)
            except OSError as error:
                raise DriverFailed(f"pack {change.path}", error) from error
        yield _END

    def _entry(self, path: str) -> Iterator[bytes | Content]:
        above, _, name = path.rpartition("/")
        directory = self._enter(above)
        if name.startswith(WHITEOUT_PREFIX):
            log.warning("%s: is left out, since its name would delete another file", path)
            return
        name = name or "."
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            fd = os.open(name, _READ, dir_fd=directory)
            try:
                status = os.fstat(fd)
                header = self._header(path, fd, "", status)
                yield encode_header(header)
            except BaseException:
                os.close(fd)
                raise
            if header.size:
                yield Content(fd, header.size, path)
            else:
                os.close(fd)
        elif stat.S_ISSOCK(status.st_mode):
            log.info("%s: is left out, since layers hold no sockets", path)
        else:
            yield encode_header(self._header(path, directory, name, status))

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
        if status.st_nlink > 1 and not stat.S_ISDIR(mode):
            first = self._first_link(header.name, status)
            if first is not None:
                header.kind = Kind.HARD_LINK
                header.link = first
                return header
        if stat.S_ISDIR(mode):
            header.name = header.name + b"/" if header.name else b"./"
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

    def _enter(self, above: str) -> int:
        """Return a descriptor of a directory; the last one stays open."""
        known, fd = self._above
        if above == known:
            return fd
        self._leave()
        fd = open_in_root(self._root, above, _DIRECTORY) if above else self._root
        self._above = (above, fd)
        return fd

    def _leave(self) -> None:
        _, fd = self._above
        if fd != self._root:
            os.close(fd)
        self._above = ("", self._root)


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
