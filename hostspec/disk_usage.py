"""What a tree of files occupies, its own and what it shares with others told apart."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from hostspec.kernel.fiemap import extents
from hostspec.kernel.mountinfo import filesystem_device
from hostspec.treewalk import open_directory, opened_tree, walk
from hostspec.values import Change, ChangeKind, DiskUsage, Extents

__all__ = ["content_bytes", "joined", "length_of", "measure_tree"]

_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is
_WITH_SIZE = frozenset({stat.S_IFREG, stat.S_IFLNK})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""What the kernel says of a name that now leads nowhere, or to something of another kind."""


def measure_tree(tree: str, *, blocks_are_shared: bool, limit_bytes: int | None = None) -> DiskUsage:
    """Measure a tree, nested subvolumes included and mounts left out; each inode counts once.

    Where files can share blocks, their content counts as ``btrfs filesystem du --summarize`` has it:
    by extents, shared ones once; compressed ones as long as they were before. Blocks
    that only files of this tree share among themselves count as shared all the same, since the kernel does
    not tell who the others are. Elsewhere, and for all that is no regular file, it is ``du``.
    What is deleted meanwhile, as in a container that runs, does not count.

    Args:
        tree: The root directory.
        blocks_are_shared: Whether the file system has reflinks; asking for each file's extents costs an open.
        limit_bytes: A quota to pass on, or ``None``.

    Raises:
        OSError: A file cannot be looked at.
    """
    blocks = _Blocks(by_extents=blocks_are_shared)
    with opened_tree(tree) as opened:
        walk(_Directory(os.dup(opened.root), blocks))
    shared = joined(blocks.shared)
    return DiskUsage(
        exclusive_bytes=blocks.exclusive,
        shared_bytes=length_of(shared),
        inodes=len(blocks.inodes),
        limit_bytes=limit_bytes,
        shared_extents=Extents(filesystem_device(tree), shared) if blocks_are_shared else None,
    )


def content_bytes(tree: str, changes: Iterable[Change]) -> int:
    """Return the bytes of what changed: content of files and targets of symbolic links, each inode once.

    Args:
        tree: Where the files are; what is deleted meanwhile does not count.
        changes: What changed in it.

    Raises:
        OSError: A file cannot be looked at.
    """
    total = 0
    inodes: set[int] = set()
    for change in changes:
        if change.kind is ChangeKind.DELETE:
            continue
        with _unless_gone():
            found = os.lstat(tree + change.path)
            if stat.S_IFMT(found.st_mode) in _WITH_SIZE and found.st_ino not in inodes:
                total += found.st_size
                if found.st_nlink > 1:
                    inodes.add(found.st_ino)
    return total


class _Blocks:
    """What has been found so far."""

    def __init__(self, *, by_extents: bool) -> None:
        self.by_extents = by_extents
        self.inodes: set[tuple[int, int]] = set()
        self.exclusive = 0
        self.shared: list[tuple[int, int]] = []

    def add_inode(self, status: os.stat_result) -> bool:
        """Count an inode; false where it has been counted, by another of its links."""
        before = len(self.inodes)
        self.inodes.add((status.st_dev, status.st_ino))
        return len(self.inodes) > before

    def add_blocks(self, status: os.stat_result) -> None:
        """Count the blocks of an inode as its own."""
        self.exclusive += status.st_blocks * _BLOCK_BYTES

    def add_extents(self, fd: int) -> None:
        """Count the content of a regular file by where it lies."""
        for physical, length, is_shared in extents(fd):
            if is_shared:
                self.shared.append((physical, physical + length))
            else:
                self.exclusive += length


class _Directory:
    """A directory of the tree, for :func:`hostspec.treewalk.walk`; without a descriptor where it is gone."""

    def __init__(self, fd: int | None, blocks: _Blocks) -> None:
        self._fd = fd
        self._blocks = blocks

    def visit(self) -> Sequence[str]:
        if self._fd is None:
            return ()
        status = os.fstat(self._fd)
        self._blocks.add_inode(status)
        self._blocks.add_blocks(status)
        directories: list[str] = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    with _unless_gone():
                        self._visit_file(entry)
        return directories

    def _visit_file(self, entry: os.DirEntry[str]) -> None:
        status = entry.stat(follow_symlinks=False)
        if not self._blocks.add_inode(status):
            return
        if not self._blocks.by_extents or not stat.S_ISREG(status.st_mode):
            self._blocks.add_blocks(status)
        elif status.st_size:
            fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                self._blocks.add_extents(fd)
            finally:
                os.close(fd)

    def child(self, name: str) -> _Directory:
        fd = None
        with _unless_gone():
            fd = open_directory(name, parent=self._fd)
        return _Directory(fd, self._blocks)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Leave the block where it looks for a file that somebody has deleted."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def joined(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return runs that cover the same bytes, in order, and none of which touches the next.

    Args:
        runs: Each given by its start and its end, in any order.
    """
    found: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return tuple(found)


def length_of(runs: Iterable[tuple[int, int]]) -> int:
    """Return how many bytes lie in runs that :func:`joined` gave."""
    return sum(end - start for start, end in runs)
