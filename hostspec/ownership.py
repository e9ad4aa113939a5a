"""Move a tree of files from one ID map to another: everything that carries an ID, and nothing else.

What carries one, and how it changes, is in :mod:`hostspec.idshift`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Sequence
from threading import Lock

from hostspec.idmap import IdMap
from hostspec.idshift import ACL_NAMES, CAPABILITY_NAME, IdShift
from hostspec.kernel.modes import change_mode
from hostspec.kernel.own_directory import may_leave_shared_directory
from hostspec.treewalk import FirstNames, Tally, Tree, handle, naming, open_directory, opened_tree, walk
from hostspec.values import ProgressCallback, Shifted

__all__ = ["shift_tree"]

_XATTRS_WITH_IDS = ACL_NAMES | {CAPABILITY_NAME}
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_COPYING_THREADS = 4


def shift_tree(
    root: str,
    old: IdMap,
    new: IdMap,
    *,
    squash: bool = False,
    threads: int | None = None,
    copies_content: bool | None = None,
    left_out: Container[str] = frozenset(),
    progress: ProgressCallback | None = None,
) -> Shifted:
    """Give every file of a tree the IDs of ``new`` instead of ``old``.

    Afterwards every inode, the root directory's among them, carries its new IDs (see the module),
    mapped exactly once however many names it has. Set-ID bits, capabilities, all other extended
    attributes and the times of access and modification are what they were.
    A file whose IDs stay the same is not touched.

    Nested btrfs subvolumes are part of the tree. What is mounted below ``root`` is not:
    the pass goes on beneath it.

    On an overlay each file is copied up into the upper directory. The kernel does that name by
    name: without ``index=on`` the other names of a file stay on the old inode. So they are linked
    anew to the inode that has been mapped, or with ``index=on`` copied up as the links that they are;
    in both cases the upper directory is then whole, and may be mounted either way.

    Nothing else may change the tree meanwhile. After an error a part of it has been mapped.

    Args:
        root: A directory.
        old: The map that the files carry.
        new: The map that they will carry.
        squash: Replace IDs outside the maps, as :class:`IdShift` does, instead of failing.
        threads: How many to use; ``None`` for the fastest: several where content is copied up, else one.
        copies_content: Whether changing an owner makes the file system copy the content, as an
            overlay without metacopy does; ``None`` to look in the mount table. (A detached mount
            is not there.)
        left_out: Paths, absolute within ``root``, that stay as they are, with all that is below them.
        progress: Told how many files have been seen, of an unknown total.

    Returns:
        Inodes changed; bytes of the regular files among them, if their content is copied (what lay
        in the upper directory already counts too, as it cannot be told apart); IDs squashed.

    Raises:
        IdNotMapped: A map does not cover an ID, and nothing is squashed; has the path
            (absolute within ``root``) and the ID.
        OSError: The operating system refused; has the path (absolute within ``root``).
    """
    shift = IdShift(old, new, squash=squash)
    if shift.is_identity:
        return Shifted(0, 0)
    with opened_tree(root) as tree:
        if copies_content is None:
            copies_content = tree.filesystem == "overlay" and "metacopy=on" not in tree.options
        tally = Tally(progress)
        apart = may_leave_shared_directory()
        shifting = _Pass(tree, shift, tally, apart=apart, copies_content=copies_content, left_out=left_out)
        top = _ShiftedDirectory(shifting, os.dup(tree.root), "")
        walk(top, threads=threads or shifting.best_threads, apart=apart)
    tally.finish()
    return Shifted(shifting.inodes, shifting.bytes_copied, shift.squashed)


class _Pass:
    """What the directories of one ownership pass have in common."""

    def __init__(
        self,
        tree: Tree,
        shift: IdShift,
        tally: Tally,
        *,
        apart: bool,
        copies_content: bool,
        left_out: Container[str],
    ) -> None:
        self.root = tree.root
        self._apart = apart
        self.copies_content = copies_content
        self.left_out = left_out
        self.inodes = 0
        self.bytes_copied = 0
        self._shift = shift
        self._tally = tally
        # A detached mount may be one.
        self._may_be_overlay = tree.filesystem in {"overlay", ""}
        self._counting = Lock()
        self._linking = Lock()
        self._first_names = FirstNames()

    @property
    def best_threads(self) -> int:
        """The fastest number of threads."""
        # Debian root, 2 processors: where only inodes change, two threads take up to twice as long as one,
        # as they wait for Python's lock and for the file system's. Where content is copied and
        # each file synced, four take little more than half of what one takes: they wait for the disk.
        return _COPYING_THREADS if self.copies_content else 1

    def look_at(self, entry: os.DirEntry[str]) -> os.stat_result:
        """Return what the kernel says of an entry of a directory."""
        try:
            return entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        # With index=on, overlayfs says so while another thread has the inode copied up by another name.
        with self._linking:
            return entry.stat(follow_symlinks=False)

    def count(self, files: int, changed_files: int, changed_bytes: int) -> None:
        """Count what was done in one directory."""
        with self._counting:
            self.inodes += changed_files
            if self.copies_content:
                self.bytes_copied += changed_bytes
        self._tally.add(files)

    def way_into(self, directory: int) -> str:
        """Return what leads to a name in a directory that is about to be visited, when put before it."""
        if self._apart:
            os.fchdir(directory)
            return ""
        return handle(directory, "")

    def shift_inode(self, place: str, path: str, found: os.stat_result) -> bool:
        """Map one inode, by the way to one of its names, and tell whether anything changed."""
        owner = (found.st_uid, found.st_gid)
        new_owner = self._shift.owner(*owner, path)
        # A symbolic link has neither ACL nor capabilities.
        before = {} if stat.S_ISLNK(found.st_mode) else _xattrs_with_ids(place)
        after = before and {key: self._shift.xattr(key, value, path) for key, value in before.items()}
        if new_owner == owner and after == before:
            return False
        if new_owner != owner:
            os.chown(place, *new_owner, follow_symlinks=False)
            before.pop(CAPABILITY_NAME, None)  # the kernel has dropped it
        for key, value in after.items():
            if before.get(key) != value:
                os.setxattr(place, key, value, follow_symlinks=False)
        if found.st_mode & _SET_IDS:
            change_mode(place, stat.S_IMODE(found.st_mode))  # chown(2) has cleared these bits
        return True

    def shift_linked(
        self, place: str, path: str, found: os.stat_result, split: list[tuple[str, str]]
    ) -> bool:
        """Map an inode that has several names, when the first of them comes by.

        Where the first name has become another inode meanwhile, since it was copied up, ``(path, path of
        the first)`` is added to ``split``.
        """
        # Locked all the while, so that a second name is not looked at while the first is copied up.
        with self._linking:
            first = self._first_names.before(found)
            if first is None:
                changed = self.shift_inode(place, path, found)
                self._first_names.add(found, path, changed=changed)
                return changed
            if not first.changed:
                return False
            if not os.path.samestat(os.lstat(first.path[1:], dir_fd=self.root), found):
                split.append((path, first.path))
                return False
        if self._may_be_overlay:
            # With index=on the inode has been mapped, but this name of it lies in a lower layer only.
            times = (found.st_atime_ns, found.st_mtime_ns)
            os.utime(place, ns=times, follow_symlinks=False)
        return False


class _ShiftedDirectory:
    """A directory in an ownership pass; but for the root, it has been mapped itself when it is visited."""

    def __init__(self, shifting: _Pass, descriptor: int, path: str) -> None:
        self._pass = shifting
        self._descriptor = descriptor
        self._path = path

    def visit(self) -> Sequence[str]:
        descriptor = self._descriptor
        subdirectories: list[str] = []
        split: list[tuple[str, str]] = []
        files = changed_files = changed_bytes = 0
        path = self._path or "/"
        try:
            way = self._pass.way_into(descriptor)
            if not self._path:
                changed_files += self._pass.shift_inode(f"{way}.", path, os.fstat(descriptor))
                files += 1
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    name = entry.name
                    path = f"{self._path}/{name}"
                    if path in self._pass.left_out:
                        continue
                    found = self._pass.look_at(entry)
                    files += 1
                    is_directory = stat.S_ISDIR(found.st_mode)
                    if is_directory:
                        subdirectories.append(name)
                    if found.st_nlink == 1 or is_directory:
                        changed = self._pass.shift_inode(way + name, path, found)
                    else:
                        changed = self._pass.shift_linked(way + name, path, found, split)
                    if changed:
                        changed_files += 1
                        if stat.S_ISREG(found.st_mode):
                            changed_bytes += found.st_size
            self._link_again(split)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        self._pass.count(files, changed_files, changed_bytes)
        return subdirectories

    def _link_again(self, split: Sequence[tuple[str, str]]) -> None:
        """Replace names that copy-up left on the old inode by links to the one that has been mapped."""
        if not split:
            return
        before = os.fstat(self._descriptor)
        for path, first in split:
            name = os.path.basename(path)
            os.unlink(name, dir_fd=self._descriptor)
            os.link(
                first[1:],
                name,
                src_dir_fd=self._pass.root,
                dst_dir_fd=self._descriptor,
                follow_symlinks=False,
            )
        os.utime(self._descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))

    def child(self, name: str) -> _ShiftedDirectory:
        path = f"{self._path}/{name}"
        with naming(path):
            return _ShiftedDirectory(self._pass, open_directory(name, parent=self._descriptor), path)

    def close(self) -> None:
        os.close(self._descriptor)


def _xattrs_with_ids(place: str) -> dict[str, bytes]:
    """Return the extended attributes of a file, not a symbolic link, that carry IDs."""
    # Not by the xattr package: for each file of a tree 1.7 instead of 3.3 microseconds, a third of the pass.
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {key: os.getxattr(place, key, follow_symlinks=False) for key in names if key in _XATTRS_WITH_IDS}
