"""The directories into which a tar is unpacked, each opened once and never outside the root.

The members of a tar lie together, so that a few open directories serve nearly all of them. The
kernel resolves each new one under the root (:func:`hostspec.kernel.resolve.open_in_root`); an open descriptor
stays inside whatever happens to the names above it. A name that may lead elsewhere since
something was removed is resolved again (:meth:`Directories.forget`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from hostspec.archive.whiteouts import AUFS_PREFIX
from hostspec.errors import InvalidArchive
from hostspec.kernel.resolve import open_in_root

__all__ = ["Directories", "Directory", "components"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_MAX_OPEN = 48
_AUFS = AUFS_PREFIX.encode()
_DEFAULT_ACL = "system.posix_acl_default"

Maker = Callable[["Directory", bytes, bytes], None]
"""Makes a directory that the tar does not mention: the one above, its name, and the whole path."""


class Directory:
    """An open directory."""

    __slots__ = ("fd", "inherits", "inode")

    def __init__(self, fd: int) -> None:
        """Take over a descriptor."""
        status = os.fstat(fd)
        self.fd = fd
        """Its descriptor, open for reading."""
        self.inode = status.st_ino
        """Its inode number."""
        self.inherits = bool(status.st_mode & stat.S_ISGID) or has_default_acl(fd)
        """Whether what is made in it gets its group or its default ACL."""


class Directories:
    """Finds the directory in which a member of a tar belongs."""

    def __init__(self, root: str, make: Maker) -> None:
        """Open the root.

        Args:
            root: The directory that is never left.
            make: Called for directories that are missing.

        Raises:
            OSError: It is no directory that can be opened.
        """
        self.root = Directory(os.open(root, _DIRECTORY | os.O_CLOEXEC))
        self._make = make
        self._open: dict[bytes, Directory] = {}
        self._forgotten: list[Directory] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()
        self._close_forgotten()
        os.close(self.root.fd)

    def forget(self) -> None:
        """Resolve all names again: something was removed through which they may have led.

        What :meth:`find` returned last stays open until it is called again.
        """
        self._forgotten += self._open.values()
        self._open.clear()

    def _close_forgotten(self) -> None:
        while self._forgotten:
            os.close(self._forgotten.pop().fd)

    def refresh_root(self) -> None:
        """Look again at the root, whose mode or ACL has changed."""
        self.root = Directory(self.root.fd)

    def add(self, path: bytes, fd: int) -> Directory:
        """Keep a directory that has just been opened; takes over the descriptor."""
        directory = Directory(fd)
        while len(self._open) >= _MAX_OPEN:
            os.close(self._open.pop(next(iter(self._open))).fd)
        previous = self._open.pop(path, None)
        if previous is not None:
            os.close(previous.fd)
        self._open[path] = directory
        return directory

    def find(self, path: bytes, *, make: bool = True) -> Directory | None:
        """Return the directory with this name in the tar; valid until the next call.

        Args:
            path: As the tar has it: absolute or not, with ``.``, ``..`` and double slashes.
            make: Make what is missing.

        Returns:
            The directory, or ``None``: it belongs to aufs's book-keeping, or is missing and not made.

        Raises:
            InvalidArchive: The name leads out of the root, is too long, or goes through
                something that is no directory.
            OSError: The operating system refused.
        """
        found = self._open.get(path)
        if found is not None:
            return found
        self._close_forgotten()
        names = components(path)
        if not names:
            return self.root
        if names[0].startswith(_AUFS):
            return None
        return self._resolve(path, names, make=make)

    def _resolve(self, path: bytes, names: list[bytes], *, make: bool) -> Directory | None:
        cleaned = b"/".join(names)
        try:
            fd = open_in_root(self.root.fd, os.fsdecode(cleaned), _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            if not make:
                return None
            return self._resolve_missing(path, names)
        return self.add(path, fd)

    def _resolve_missing(self, path: bytes, names: list[bytes]) -> Directory:
        """Make the directories on the way that are missing, from the first one on."""
        depth, fd = self._deepest(names[:-1])
        while depth < len(names):
            above = Directory(fd)
            name = names[depth]
            depth += 1
            try:
                self._make(above, name, b"/".join(names[:depth]))
                fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above.fd)
            finally:
                os.close(above.fd)
        return self.add(path, fd)

    def _deepest(self, names: list[bytes]) -> tuple[int, int]:
        """Return how many of these directories, one in the other, are there, and a descriptor of the last."""
        for depth in range(len(names), 0, -1):
            try:
                return depth, open_in_root(self.root.fd, os.fsdecode(b"/".join(names[:depth])), _DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return 0, os.dup(self.root.fd)


def components(path: bytes) -> list[bytes]:
    """Return the names in a path of a tar, with ``.`` and ``..`` taken out as text.

    Raises:
        InvalidArchive: It leads out of the root.
    """
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            if not names:
                raise InvalidArchive("its name leads out of the layer")
            names.pop()
        elif name not in (b"", b"."):
            names.append(name)
    return names


def has_default_acl(fd: int) -> bool:
    """Tell whether a directory gives an ACL to what is made in it."""
    try:
        return _DEFAULT_ACL in os.listxattr(fd)
    except OSError:
        return False  # the file system has no extended attributes
