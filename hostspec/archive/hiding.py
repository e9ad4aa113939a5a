"""Carrying out whiteouts: they speak of the layers below, never of the tar they stand in."""

from __future__ import annotations

import os
import stat

from hostspec.archive.attributes import Attributes
from hostspec.archive.directories import Directories, Directory
from hostspec.archive.making import Maker
from hostspec.archive.placed import PlacedNames
from hostspec.archive.removal import prune
from hostspec.archive.whiteouts import WhiteoutForm

__all__ = ["Hiding"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Hiding:
    """Hides what the layers below have, in the form that the directory's reader expects."""

    def __init__(
        self,
        form: WhiteoutForm,
        directories: Directories,
        maker: Maker,
        attributes: Attributes,
    ) -> None:
        """Hide in the way of ``form``."""
        self._opaque = None if form is WhiteoutForm.PLAIN else form.xattr_prefix + "opaque"
        self._directories = directories
        self._maker = maker
        self._attributes = attributes
        self.placed = PlacedNames()
        """What came from this tar and therefore stays."""

    @property
    def by_marks(self) -> bool:
        """Whether deletions are marked for overlayfs, not carried out."""
        return self._opaque is not None

    def below(self, fd: int) -> None:
        """Let nothing of the layers below be seen in an open directory.

        Raises:
            OSError: The operating system refused.
        """
        if self._opaque is not None:
            os.setxattr(fd, self._opaque, b"y")
        else:
            prune(fd, self.placed)
            self._directories.forget()

    def name(self, directory: Directory, name: bytes) -> None:
        """Let nothing of the layers below be seen under a name.

        Raises:
            OSError: The operating system refused.
        """
        placed = (directory.inode, name) in self.placed
        if (placed or self._opaque is None) and self._below_directory(directory, name):
            return
        if placed:
            return
        self._maker.remove(directory, name)
        if self._opaque is not None:
            os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=directory.fd)
            self._attributes.to_whiteout(directory.fd, name)

    def _below_directory(self, directory: Directory, name: bytes) -> bool:
        """Do it for a directory in which something of this tar may lie; tell whether that must stay."""
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=directory.fd)
        except OSError:
            return False  # nothing, or no directory
        try:
            self.below(fd)
            return self._opaque is not None or bool(os.listdir(fd))
        finally:
            os.close(fd)
