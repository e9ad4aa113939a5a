"""What a layer tar takes for granted in the layers below: directories and targets of hard links.

An overlay layer is unpacked into a directory of its own, where these are missing. (The Go library
makes such directories 0755 root:root and fails on such links; containerd copies the parents, as here.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from hostspec.archive.lowers import MergedDirectory, NotNative, read_xattr
from hostspec.archive.times import DirectoryTimes
from hostspec.archive.whiteouts import WhiteoutForm, is_carried_xattr
from hostspec.errors import InvalidArchive
from hostspec.kernel.modes import change_mode
from hostspec.kernel.reflink import copy_content

__all__ = ["FileBelow", "LayersBelow"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileBelow:
    """A file of the layers below, no directory."""

    def __init__(self, fd: int, name: str, status: os.stat_result) -> None:
        """Speak of ``name`` in the directory ``fd``."""
        self._fd = fd
        self._name = name
        self._status = status

    def copy_to(self, directory_fd: int, name: bytes) -> None:
        """Copy it, with all that belongs to it, to a name that is free; as overlayfs copies up.

        Raises:
            OSError: The operating system refused.
        """
        status = self._status
        if stat.S_ISREG(status.st_mode):
            self._copy_file(directory_fd, name)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(os.fsencode(self._name), dir_fd=self._fd), name, dir_fd=directory_fd)
        else:
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=directory_fd)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=directory_fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            change_mode(name, stat.S_IMODE(status.st_mode), dir_fd=directory_fd)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)

    def _copy_file(self, directory_fd: int, name: bytes) -> None:
        source = os.open(self._name, _READ, dir_fd=self._fd)
        try:
            target = os.open(name, _NEW_FILE, 0o600, dir_fd=directory_fd)
            try:
                copy_content(source, target, self._status.st_size)
                _copy_attributes(source, target, self._status)
                os.utime(target, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)


class LayersBelow:
    """Looks things up in the layers below."""

    def __init__(self, upper: str, lowers: Sequence[str], form: WhiteoutForm) -> None:
        """Open the layers.

        Args:
            upper: Where the layer is unpacked; what is deleted there is not seen below.
            lowers: The directories of the layers below, topmost first; may be empty.
            form: How deletions are written in them.

        Raises:
            OSError: One of them cannot be opened.
        """
        self._form = form
        self._root = MergedDirectory.of([upper, *lowers], form) if lowers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._root is not None:
            self._root.close()

    @contextmanager
    def find(self, names: Sequence[bytes]) -> Iterator[FileBelow | None]:
        """Find a file that is no directory, by the names on the way to it; ``None`` when there is none.

        Raises:
            InvalidArchive: Its content lies where only overlayfs itself finds it.
        """
        *above, name = map(os.fsdecode, names)
        directory = self._walk(above)
        if directory is None:
            yield None
            return
        with directory:
            found = directory.find(name)
            if found is None or not found.level or stat.S_ISDIR(found.status.st_mode):
                yield None
                return
            fd = directory.fds[found.level]
            if read_xattr(f"/proc/self/fd/{fd}/{name}", self._form.xattr_prefix + "metacopy") is not None:
                raise InvalidArchive("a hard link leads to a file whose content is in another layer")
            yield FileBelow(fd, name, found.status)

    def make_alike(self, fd: int, path: bytes, times: DirectoryTimes) -> bool:
        """Make a fresh directory of the upper layer look like the one below it, if there is one.

        Returns:
            Whether there is one.

        Raises:
            OSError: The operating system refused.
        """
        directory = self._walk([os.fsdecode(name) for name in path.split(b"/")])
        if directory is None:
            return False
        with directory:
            if len(directory.fds) == 1:
                return False
            below = directory.fds[1]
            status = os.fstat(below)
            _copy_attributes(below, fd, status)
            times.add(path, status.st_mtime_ns)
        return True

    def _walk(self, names: Sequence[str]) -> MergedDirectory | None:
        if self._root is None:
            return None
        try:
            return self._root.walk(names)
        except NotNative as reason:
            raise InvalidArchive(str(reason)) from reason


def _copy_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Copy owner, mode and extended attributes, but not those that steer overlayfs."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    wanted = {name for name in os.listxattr(source) if is_carried_xattr(name)}
    for name in os.listxattr(target):
        if is_carried_xattr(name) and name not in wanted:
            os.removexattr(target, name)
    for name in sorted(wanted):
        os.setxattr(target, name, os.getxattr(source, name))
