"""The tree that a layer inherits, written into one directory under another ID map, without a mount.

The kernel makes the same directory when owners are changed through an overlay mount: each file is copied up,
with metacopy as a *stub*, an empty file of the right size whose content is looked up, by its name, in the
layers below (Linux ``Documentation/filesystems/overlayfs.rst``, "Metadata only copy up", and
``fs/overlayfs/copy_up.c``). Written straight from the layers below, an inode is made once, complete,
instead of being looked up, copied up and then changed.

What the kernel notes beside that is left out, since it reads it in an upper directory only, and what is
written here is a lower one in every mount: where a file came from (``trusted.overlay.origin``), and that a
directory has such files in it (``trusted.overlay.impure``). An empty file is no stub but whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Final

from hostspec.archive.lowers import MergedDirectory, NotNative
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.idshift import IdShift
from hostspec.kernel.filesystems import filesystem_name
from hostspec.kernel.reflink import CopyWay, copy_content
from hostspec.treecopy import goes_with_a_copy
from hostspec.treewalk import FirstNames, Tally, handle, naming, open_directory, walk
from hostspec.values import ProgressCallback, Shifted

__all__ = ["write_inherited"]

_FORM = WhiteoutForm.OVERLAY
_NOTES = _FORM.xattr_prefix
_STUB = f"{_NOTES}metacopy"
# Notes of an overlay within a container, which the kernel keeps beside its own under a longer name.
_NESTED_NOTES = f"{_NOTES}overlay."
_NO_XATTRS: Final[Mapping[str, bytes]] = {}
_PERMISSIONS = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


def write_inherited(
    lowers: Sequence[str],
    root: str,
    target: str,
    shift: IdShift,
    *,
    stubs: bool,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Shifted:
    """Write what some layers show together under the IDs of another map.

    Afterwards an overlay of ``target`` over ``lowers`` shows what ``lowers`` show, under the new IDs: content
    with its holes, hard links, device nodes, fifos and sockets, modes with set-ID bits, extended attributes,
    and times of access and modification in nanoseconds. Files that carry no ID that changes are not in
    ``target``. The layers are not changed, not even their times of access.

    Flags of an inode (chattr(1)) are not copied; no layer tar has them either.

    Args:
        lowers: Directories of layers, uppermost first; nobody may change them meanwhile.
        root: The directory from which the root takes all but its content.
        target: An empty directory on the same file system as ``root``. After an error it holds a part.
        shift: From the map of the layers to the new one.
        stubs: Leave content where it is (``metacopy``), instead of copying it.
        threads: How many to use; ``None`` for the fastest: two on ext4, else one.
        progress: Told how many files have been seen, of an unknown total.

    Returns:
        Inodes written with other IDs; bytes copied, not counting what shares its blocks; IDs squashed.

    Raises:
        NotNative: The layers use what only the kernel can follow: renamed directories, or stubs among files
            that are to be copied.
        IdNotMapped: The map does not cover an ID; has the path (absolute within the layer).
        OSError: The operating system refused; has the path (absolute within the layer).
    """
    tally = Tally(progress)
    with ExitStack() as opened:

        def keep(path: str) -> int:
            descriptor = open_directory(path)
            opened.callback(os.close, descriptor)
            return descriptor

        target_root, source_root, *roots = map(keep, (target, root, *lowers))
        writing = _Writing(target_root, shift, tally, stubs=stubs)
        # Not MergedDirectory.of(): whether a root is opaque, the kernel does not look.
        merged = MergedDirectory(list(map(os.dup, roots)), _FORM)
        # The walk closes what it is given.
        top = _Directory(writing, merged, source_root, os.dup(target_root), "")
        walk(top, threads=threads or _best_threads(target), apart=True)
    tally.finish()
    return Shifted(writing.inodes, writing.bytes_copied, shift.squashed)


def _best_threads(target: str) -> int:
    # Stubs, 2 processors: two threads take 0.7 (100,000 files) to 0.9 (Debian root) of one's time on ext4,
    # and up to 1.1 on xfs and btrfs, where they wait for the file system's locks; four wait for Python's.
    return min(2, len(os.sched_getaffinity(0))) if filesystem_name(target) == "ext4" else 1


class _Writing:
    """What the directories of one pass have in common."""

    def __init__(self, target_root: int, shift: IdShift, tally: Tally, *, stubs: bool) -> None:
        self.tally = tally
        self.inodes = 0
        self.bytes_copied = 0
        self._target_root = target_root
        self._shift = shift
        self._stubs = stubs
        self._counting = Lock()
        self._linking = Lock()
        self._first_names = FirstNames()

    def count(self, files: int, inodes: int, bytes_copied: int) -> None:
        """Count what was done in one directory."""
        with self._counting:
            self.inodes += inodes
            self.bytes_copied += bytes_copied
        self.tally.add(files)

    def write_directory(self, source: int, target: int, path: str) -> bool:
        """Give a directory everything but its content. Last, as each new entry changes its times."""
        found = os.fstat(source)
        owner = self._shift.owner(found.st_uid, found.st_gid, path)
        xattrs, changed = self._shifted_xattrs(source, os.listxattr(source), path)
        _complete(target, found, owner, xattrs)
        return changed or owner != (found.st_uid, found.st_gid)

    def write_linked(self, target: int, name: str, path: str, found: os.stat_result) -> int | None:
        """Write an inode that has several names when the first of them comes by, and then only link it."""
        # Locked all the while, so that a second name is not linked before the first is complete.
        with self._linking:
            first = self._first_names.before(found)
            if first is None:
                copied = self.write(target, name, path, found)
                self._first_names.add(found, path, changed=copied is not None)
                return copied
            if first.changed:
                os.link(
                    first.path[1:],
                    name,
                    src_dir_fd=self._target_root,
                    dst_dir_fd=target,
                    follow_symlinks=False,
                )
            return None

    def write(self, target: int, name: str, path: str, found: os.stat_result) -> int | None:
        """Write one inode that is no directory, unless none of its IDs change.

        Args:
            target: The directory in which it is made.
            name: Its name there, and that of the original in the working directory.
            path: For errors.
            found: What is known of the original.

        Returns:
            Bytes copied, ``None`` where nothing was written.
        """
        owner = self._shift.owner(found.st_uid, found.st_gid, path)
        names = _xattr_names(name)
        xattrs, changed = self._shifted_xattrs(name, names, path) if names else (_NO_XATTRS, False)
        if not changed and owner == (found.st_uid, found.st_gid):
            return None
        # Set-ID bits come last, or it would be root's program for a moment.
        permissions = found.st_mode & _PERMISSIONS
        if not stat.S_ISREG(found.st_mode):
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(name), name, dir_fd=target)
            else:
                os.mknod(name, stat.S_IFMT(found.st_mode) | permissions, found.st_rdev, dir_fd=target)
            _complete(handle(target, name), found, owner, xattrs, has_permissions=True)
            return 0
        copied = 0
        new = os.open(name, _NEW_FILE, permissions, dir_fd=target)
        try:
            if not found.st_size:
                pass
            elif self._stubs:
                os.ftruncate(new, found.st_size)
                os.setxattr(new, _STUB, b"")
            elif _STUB in names:
                raise NotNative(f"{path}: its content is elsewhere (metacopy)")
            else:
                copied = _copy(name, new, found.st_size)
            _complete(new, found, owner, xattrs, has_permissions=True)
        finally:
            os.close(new)
        return copied

    def _shifted_xattrs(
        self, file: int | str, names: Sequence[str], path: str
    ) -> tuple[Mapping[str, bytes], bool]:
        """Return the extended attributes of a copy, and whether one of them is other than the original's."""
        xattrs: dict[str, bytes] = {}
        changed = False
        for name in names:
            if not goes_with_a_copy(name):
                continue
            if name.startswith(_NOTES) and not name.startswith(_NESTED_NOTES):
                continue
            value = os.getxattr(file, name, follow_symlinks=isinstance(file, int))
            xattrs[name] = self._shift.xattr(name, value, path)
            changed = changed or xattrs[name] != value
        return xattrs, changed


class _Directory:
    """A directory as the layers show it together, and the one that is written, which has no metadata yet."""

    def __init__(
        self, writing: _Writing, merged: MergedDirectory, source: int, target: int, path: str
    ) -> None:
        self._writing = writing
        self._merged = merged
        self._source = source
        self._target = target
        self._path = path

    def visit(self) -> Sequence[str]:
        subdirectories: list[str] = []
        files = inodes = bytes_copied = 0
        path = self._path or "/"
        try:
            for level, entry in self._uppermost():
                path = f"{self._path}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    subdirectories.append(entry.name)
                    os.mkdir(entry.name, 0o700, dir_fd=self._target)
                    continue
                found = entry.stat(follow_symlinks=False)
                # Marks of what is deleted have no size in any form.
                if not found.st_size and self._merged.is_whiteout(level, entry.name, found):
                    continue
                files += 1
                write = self._writing.write if found.st_nlink == 1 else self._writing.write_linked
                copied = write(self._target, entry.name, path, found)
                if copied is not None:
                    inodes += 1
                    bytes_copied += copied
            path = self._path or "/"
            inodes += self._writing.write_directory(self._source, self._target, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        self._writing.count(files + 1, inodes, bytes_copied)
        return subdirectories

    def _uppermost(self) -> Iterator[tuple[int, os.DirEntry[str]]]:
        """Yield the uppermost entry of each name, with the number of the layer in which it lies.

        The working directory is then the one in that layer.
        """
        decided: set[str] = set()
        lowest = len(self._merged.fds) - 1
        for level, source in enumerate(self._merged.fds):
            os.fchdir(source)
            with os.scandir(source) as entries:
                for entry in entries:
                    if entry.name in decided:
                        continue
                    if level != lowest:
                        decided.add(entry.name)
                    yield level, entry

    def child(self, name: str) -> _Directory:
        path = f"{self._path}/{name}"
        with naming(path):
            merged = self._merged.enter(name)
            if merged is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            try:
                target = open_directory(name, parent=self._target)
            except OSError:
                merged.close()
                raise
        return _Directory(self._writing, merged, merged.fds[0], target, path)

    def close(self) -> None:
        self._merged.close()
        os.close(self._target)


def _complete(
    target: int | str,
    found: os.stat_result,
    owner: tuple[int, int],
    xattrs: Mapping[str, bytes],
    *,
    has_permissions: bool = False,
) -> None:
    """Give a new inode its owner, extended attributes, mode and times, so that none undoes another.

    Args:
        target: Its descriptor, or a path that ends in its name.
        found: The original.
        owner: The new IDs.
        xattrs: All extended attributes.
        has_permissions: Whether it was made with the permission bits of the original.
    """
    by_descriptor = isinstance(target, int)
    os.chown(target, *owner, follow_symlinks=by_descriptor)
    for name, value in xattrs.items():
        os.setxattr(target, name, value, follow_symlinks=by_descriptor)
    mode = stat.S_IMODE(found.st_mode)
    # An ACL changes them.
    has_mode = has_permissions and not xattrs and mode <= _PERMISSIONS
    if not has_mode and not stat.S_ISLNK(found.st_mode):
        os.chmod(target, mode)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=by_descriptor)


def _xattr_names(file: str) -> Sequence[str]:
    try:
        return os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return ()


def _copy(name: str, new: int, size: int) -> int:
    """Copy a file's content, and return how many bytes had to be copied."""
    original = os.open(name, _READ)
    try:
        way = copy_content(original, new, size)
    finally:
        os.close(original)
    return 0 if way is CopyWay.REFLINK else size
