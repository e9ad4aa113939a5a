"""Copy a tree of files, or a part of it, with everything that a file system keeps about them.

Content goes by reflink where the file system can. Ownership is moved to another ID map on the way,
so that a mapped copy needs no second pass.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import NamedTuple

from hostspec.idmap import IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.reflink import CopyWay, copy_content
from hostspec.treewalk import FirstNames, Tally, handle, naming, open_directory, opened_tree, walk
from hostspec.values import Change, ChangeKind, ProgressCallback

__all__ = ["CopiedTree", "copy_changes", "copy_tree", "goes_with_a_copy"]

# What else there is belongs to the one file system, and others refuse it.
_KEPT_NAMESPACES = ("user.", "trusted.", "security.", "system.posix_acl_")
# XFS shows POSIX ACLs a second time, in a form of its own; written to a copy, it would replace the first.
# EVM seals the inode on which it stands.
_NOT_KEPT = ("trusted.SGI_ACL_", "security.evm")
_SELINUX_LABEL = "security.selinux"  # every file has one where there are any; it cannot be removed
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CopiedTree(NamedTuple):
    """What a copy did."""

    inodes: int
    """Inodes made, the root directory's among them."""
    bytes_copied: int
    """Bytes of file content that were copied (the size of files, holes included)."""
    bytes_reflinked: int
    """Bytes of file content that are shared with the source."""


def copy_tree(
    source: str,
    target: str,
    *,
    shift: IdShift | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> CopiedTree:
    """Copy a whole tree, entry by entry.

    Afterwards ``target`` has the files of ``source`` with everything that is kept about them: content
    with its holes, hard links, device nodes, fifos and sockets, owners, modes with set-ID bits, all
    extended attributes (so POSIX ACLs and capabilities), times of access and modification
    in nanoseconds; the root directory's own among them. The source is not changed, and its times
    of access stay. No symbolic link is followed, even if someone changes the source meanwhile.

    Nested btrfs subvolumes are copied as directories. What is mounted below ``source`` is not
    seen: what lies beneath is copied. Attributes outside the namespaces ``user``, ``trusted``
    and ``security`` that are no POSIX ACLs (``btrfs.compression``) belong to the file system and stay.

    Args:
        source: A directory.
        target: An empty directory. After an error it holds a part of the copy.
        shift: From the map that the source carries to the one that the target is to carry.
        threads: How many to use; ``None`` for the fastest, which is one.
        progress: Told how many files have been copied, of an unknown total.

    Raises:
        IdNotMapped: ``shift`` does not cover an ID; has the path (absolute within ``source``).
        OSError: The operating system refused; has the path (absolute within ``source``).
    """
    tally = Tally(progress)
    with opened_tree(source) as origin, _opened(target) as target_root:
        copying = _Copying(target_root, shift or IdShift(IdMap(), IdMap()), tally)
        with naming("/"):
            os.fchmod(target_root, 0o700)
            _remove_xattrs(target_root)
        top = _CopiedDirectory(copying, os.dup(origin.root), os.dup(target_root), "")
        # Two threads on two processors took 1.2 to 1.7 times as long (Debian root; xfs, btrfs, ext4): most
        # of the time goes into making inodes, for which they wait on the file system's own locks.
        walk(top, threads=threads or 1)
    tally.finish()
    return copying.result()


def copy_changes(
    source: str,
    target: str,
    changes: Iterable[Change],
    *,
    shift: IdShift | None = None,
    progress: ProgressCallback | None = None,
) -> CopiedTree:
    """Bring a tree to the state of another, where it is known in what they differ.

    What is added or modified is copied as :func:`copy_tree` does, each path by itself; what is deleted goes.
    A directory in which something is changed gets the times that it has in the source.
    Names of one inode are linked to each other as far as they are among the changes.

    Args:
        source: The tree as it is to be.
        target: The tree to change. After an error a part of the changes has been made.
        changes: How ``source`` differs, each directory before what is in it.
        shift: From the map that the source carries to the one that the target carries.
        progress: Told how many paths have been handled, of an unknown total.

    Raises:
        IdNotMapped: ``shift`` does not cover an ID; has the path.
        OSError: The operating system refused; has the path (absolute within ``source``).
    """
    tally = Tally(progress)
    with opened_tree(source) as origin, _opened(target) as target_root:
        copying = _Copying(target_root, shift or IdShift(IdMap(), IdMap()), tally, may_inherit=True)
        touched: set[str] = set()
        for change in changes:
            parent, _, name = change.path.rpartition("/")
            with naming(change.path), _both_opened(origin.root, target_root, parent) as (there, here):
                if name:
                    touched.add(parent)
                _make_change(copying, there, here, name or ".", change)
            tally.add(1)
        # Only now, as every change in a directory gave it another time.
        for path in touched:
            with naming(path or "/"), _both_opened(origin.root, target_root, path) as (there, here):
                found = os.fstat(there)
                os.utime(here, ns=(found.st_atime_ns, found.st_mtime_ns))
    tally.finish()
    return copying.result()


def _make_change(copying: _Copying, source: int, target: int, name: str, change: Change) -> None:
    try:
        present = os.lstat(name, dir_fd=target)
    except FileNotFoundError:
        present = None
    if change.kind is ChangeKind.DELETE:
        if present is not None:
            _remove(target, name, present)
        return
    wanted = os.lstat(name, dir_fd=source)
    if not stat.S_ISDIR(wanted.st_mode):
        if present is not None:
            _remove(target, name, present)
        copying.copy_file(source, target, name, change.path, wanted)
        return
    if present is not None and not stat.S_ISDIR(present.st_mode):
        _remove(target, name, present)
        present = None
    if present is None:
        os.mkdir(name, 0o700, dir_fd=target)
    with _opened(name, source) as there, _opened(name, target) as here:
        copying.copy_directory_metadata(there, here, change.path)


class _Copying:
    """What the directories of one copy have in common."""

    def __init__(self, target_root: int, shift: IdShift, tally: Tally, *, may_inherit: bool = False) -> None:
        self.tally = tally
        self._may_inherit = may_inherit
        self._target_root = target_root
        self._shift = shift
        self._counting = Lock()
        self._linking = Lock()
        self._first_names = FirstNames()
        self._inodes = 0
        self._bytes_copied = 0
        self._bytes_reflinked = 0

    def result(self) -> CopiedTree:
        return CopiedTree(self._inodes, self._bytes_copied, self._bytes_reflinked)

    def copy_file(self, source: int, target: int, name: str, path: str, found: os.stat_result) -> None:
        """Copy anything that is no directory, under the name that it has, which must be free."""
        if found.st_nlink == 1:
            self._copy_inode(source, target, name, path, found)
            return
        # Locked all the while, so that a second name is not linked before the first is complete.
        with self._linking:
            first = self._first_names.before(found)
            if first is None:
                self._copy_inode(source, target, name, path, found)
                self._first_names.add(found, path)
            else:
                os.link(
                    first.path[1:],
                    name,
                    src_dir_fd=self._target_root,
                    dst_dir_fd=target,
                    follow_symlinks=False,
                )

    def _copy_inode(self, source: int, target: int, name: str, path: str, found: os.stat_result) -> None:
        if stat.S_ISREG(found.st_mode):
            self._copy_regular(source, target, name, path)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev, dir_fd=target)
        self._copy_metadata(handle(source, name), handle(target, name), path, found)
        self._count()

    def _copy_regular(self, source: int, target: int, name: str, path: str) -> None:
        with _opened_file(source, name) as original:
            found = os.fstat(original)
            copy = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
            try:
                way = copy_content(original, copy, found.st_size)
                self._copy_metadata(original, copy, path, found)
            finally:
                os.close(copy)
        self._count(found.st_size, way)

    def copy_directory_metadata(self, source: int, target: int, path: str) -> None:
        """Give a directory everything but its content. Last, as each new entry changes its times."""
        self._copy_metadata(source, target, path, os.fstat(source))
        self._count()

    def _copy_metadata(self, source: int | str, target: int | str, path: str, found: os.stat_result) -> None:
        """Copy owner, extended attributes, mode and times, in an order in which none undoes another.

        Args:
            source: A descriptor, or for what must not be opened a path that ends in its name.
            target: Likewise.
            path: For errors.
            found: What is known of the source.
        """
        by_descriptor = isinstance(source, int)
        owner = self._shift.owner(found.st_uid, found.st_gid, path)
        os.chown(target, *owner, follow_symlinks=by_descriptor)
        if self._may_inherit:
            _remove_xattrs(target)
        for name, value in _xattrs(source):
            shifted = self._shift.xattr(name, value, path)
            os.setxattr(target, name, shifted, follow_symlinks=by_descriptor)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(target, stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=by_descriptor)

    def _count(self, size: int = 0, way: CopyWay = CopyWay.REFLINK) -> None:
        with self._counting:
            self._inodes += 1
            if way is CopyWay.REFLINK:
                self._bytes_reflinked += size
            else:
                self._bytes_copied += size


class _CopiedDirectory:
    """A directory in a copy, open on both sides; the target's exists, and has no metadata yet."""

    def __init__(self, copying: _Copying, source: int, target: int, path: str) -> None:
        self._copying = copying
        self._source = source
        self._target = target
        self._path = path

    def visit(self) -> Sequence[str]:
        subdirectories: list[str] = []
        files = 0
        path = self._path or "/"
        try:
            with os.scandir(self._source) as entries:
                for entry in entries:
                    path = f"{self._path}/{entry.name}"
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        subdirectories.append(entry.name)
                        os.mkdir(entry.name, 0o700, dir_fd=self._target)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    self._copying.copy_file(self._source, self._target, entry.name, path, found)
            path = self._path or "/"
            self._copying.copy_directory_metadata(self._source, self._target, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        self._copying.tally.add(files)
        return subdirectories

    def child(self, name: str) -> _CopiedDirectory:
        path = f"{self._path}/{name}"
        with naming(path):
            source = open_directory(name, parent=self._source)
            try:
                target = open_directory(name, parent=self._target)
            except OSError:
                os.close(source)
                raise
        return _CopiedDirectory(self._copying, source, target, path)

    def close(self) -> None:
        os.close(self._source)
        os.close(self._target)


def goes_with_a_copy(name: str) -> bool:
    """Tell whether a copy of a file must have this extended attribute, too."""
    return name.startswith(_KEPT_NAMESPACES) and not name.startswith(_NOT_KEPT)


def _xattrs(file: int | str) -> Iterator[tuple[str, bytes]]:
    """Return the extended attributes of a file that go with it to another file system."""
    # Not by the xattr package, whose calls take twice as long, three of them for each file.
    by_descriptor = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=by_descriptor)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    for name in names:
        if goes_with_a_copy(name):
            yield name, os.getxattr(file, name, follow_symlinks=by_descriptor)


def _remove_xattrs(file: int | str) -> None:
    """Free a file of what it had, or inherited from a directory's default ACL."""
    for name, _ in _xattrs(file):
        if name != _SELINUX_LABEL:
            os.removexattr(file, name, follow_symlinks=isinstance(file, int))


def _remove(directory: int, name: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        from shutil import rmtree  # noqa: PLC0415 - loads compressors, and few copies meet a directory there

        rmtree(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


@contextmanager
def _opened(name: str, parent: int | None = None) -> Iterator[int]:
    descriptor = open_directory(name, parent=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _both_opened(source_root: int, target_root: int, path: str) -> Iterator[tuple[int, int]]:
    """Open a directory in both trees, step by step, so that no symbolic link is followed."""
    with ExitStack() as opened:
        source, target = source_root, target_root
        for name in path.split("/")[1:]:
            source = opened.enter_context(_opened(name, source))
            target = opened.enter_context(_opened(name, target))
        yield source, target


@contextmanager
def _opened_file(directory: int, name: str) -> Iterator[int]:
    """Open a regular file for reading, if possible without changing its access time."""
    # Not blocking: it may just have been replaced by a fifo.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        descriptor = os.open(name, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
