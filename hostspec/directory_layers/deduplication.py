"""Letting equal files of several trees share their blocks, on a file system with reflinks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.kernel.dedupe import share_blocks
from hostspec.kernel.resolve import open_in_root
from hostspec.treewalk import open_directory, opened_tree, walk

__all__ = ["share_equal_files"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20


class _File(NamedTuple):
    """A regular file of one of the trees."""

    root_fd: int
    """Descriptor of the tree's root."""
    path: str
    """Relative to that root."""
    device: int
    inode: int
    size: int
    """In bytes."""


def share_equal_files(trees: Iterable[str], method: str) -> int:
    """Let regular files with the same content share their blocks; nothing else about them changes.

    Files that disappear or change meanwhile, and those that may not be changed, are left as they are:
    the kernel compares the bytes before it shares them. Empty files and further links are passed over.

    Args:
        trees: Root directories on one file system that has reflinks.
        method: What makes files candidates: ``"size"``, or size and ``"crc"`` or ``"sha256"`` of the content,
            which saves comparisons where many files have the same size.

    Returns:
        Bytes that need no room of their own, as they are shared with an equal file: now, or since before.

    Raises:
        InvalidRequest: There is no such method.
        OSError: A directory cannot be read.
    """
    if method not in _CHECKSUMS:
        raise InvalidRequest(f"method {method!r}", f"must be one of {', '.join(_CHECKSUMS)}")
    with ExitStack() as opened:
        found = _Found()
        for tree in trees:
            found.add_tree(opened.enter_context(opened_tree(tree)).root)
        return sum(_share(group) for group in _candidates(found.by_size.values(), _CHECKSUMS[method]))


class _Found:
    """The files found so far."""

    def __init__(self) -> None:
        self.by_size: dict[int, list[_File]] = {}
        self._inodes: set[tuple[int, int]] = set()

    def add_tree(self, root_fd: int) -> None:
        walk(_Directory(os.dup(root_fd), "", root_fd, self))

    def add(self, file: _File) -> None:
        if file.size and (file.device, file.inode) not in self._inodes:
            self._inodes.add((file.device, file.inode))
            self.by_size.setdefault(file.size, []).append(file)


class _Directory:
    """A directory of a tree, for :func:`hostspec.treewalk.walk`."""

    def __init__(self, fd: int, path: str, root_fd: int, found: _Found) -> None:
        self._fd = fd
        self._path = path
        self._root_fd = root_fd
        self._found = found

    def visit(self) -> Sequence[str]:
        directories: list[str] = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    self._add(entry)
        return directories

    def _add(self, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        path = self._path + entry.name
        self._found.add(_File(self._root_fd, path, status.st_dev, status.st_ino, status.st_size))

    def child(self, name: str) -> _Directory:
        fd = open_directory(name, parent=self._fd)
        return _Directory(fd, f"{self._path}{name}/", self._root_fd, self._found)

    def close(self) -> None:
        os.close(self._fd)


def _candidates(
    groups: Iterable[Sequence[_File]], checksum: Callable[[int], object] | None
) -> Iterator[Sequence[_File]]:
    """Yield groups of two files or more that may be equal."""
    for group in groups:
        if len(group) == 1:
            continue
        if checksum is None:
            yield group
            continue
        by_checksum: dict[object, list[_File]] = {}
        for file in group:
            with _opened(file) as fd:
                if fd is not None:
                    by_checksum.setdefault(checksum(fd), []).append(file)
        yield from (each for each in by_checksum.values() if len(each) > 1)


def _share(group: Sequence[_File]) -> int:
    """Let each file of a group use the blocks of the first that is equal to it."""
    saved = 0
    originals: list[_File] = []
    for file in group:
        with _opened(file) as target:
            shared = 0 if target is None else _share_with_any(originals, target, file.size)
        if shared:
            saved += shared
        else:
            originals.append(file)
    return saved


def _share_with_any(originals: Sequence[_File], target: int, size: int) -> int:
    for original in originals:
        with _opened(original) as source:
            if source is None:
                continue
            try:
                shared = share_blocks(source, target, size)
            except OSError:
                # Not this pair: one of them is immutable, or too small to have blocks of its own.
                continue
            if shared:
                return shared
    return 0


@contextmanager
def _opened(file: _File) -> Iterator[int | None]:
    """Open a file that was found before; give ``None`` where another or none is there now."""
    try:
        fd = open_in_root(file.root_fd, file.path, _READ)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(fd)
        as_found = (status.st_dev, status.st_ino, status.st_size) == (file.device, file.inode, file.size)
        yield fd if as_found and stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(fd)


def _crc(fd: int) -> object:
    from fastcrc import crc64  # noqa: PLC0415 - one of three methods

    checksum = 0
    while piece := os.read(fd, _PIECE):
        checksum = crc64.ecma_182(piece, checksum)
    return checksum


def _sha256(fd: int) -> object:
    from hashlib import sha256  # noqa: PLC0415 - one of three methods

    digest = sha256()
    while piece := os.read(fd, _PIECE):
        digest.update(piece)
    return digest.digest()


_CHECKSUMS: dict[str, Callable[[int], object] | None] = {"size": None, "crc": _crc, "sha256": _sha256}
