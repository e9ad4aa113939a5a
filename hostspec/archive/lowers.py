"""Looking up names in a stack of overlay layers as overlayfs merges them, without mounting it.

``Documentation/filesystems/overlayfs.rst``: a name is what the topmost layer has under it; a
directory goes on in the layers below, until a whiteout, an opaque directory or something that is no
directory ends it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from hostspec.archive.whiteouts import WhiteoutForm, is_whiteout_device
from hostspec.treewalk import open_directory

__all__ = ["MergedDirectory", "NotNative", "read_xattr"]


class NotNative(Exception):
    """The layers use a feature of overlayfs that only the kernel can follow (``redirect_dir``)."""


class Found(NamedTuple):
    """A name in one of the layers."""

    status: os.stat_result
    """What it is."""
    level: int
    """In which of the directory's layers it lies, 0 for the topmost."""


class MergedDirectory:
    """One directory in all layers that contribute to it, topmost first."""

    def __init__(self, fds: Sequence[int], form: WhiteoutForm) -> None:
        """Take over descriptors of the directory in its layers."""
        self._prefix = form.xattr_prefix
        self._form = form
        self.fds: list[int] = list(fds)
        """Descriptors, one for each layer that has it."""
        self._marks_by_xattr = [_opaque(fd, self._prefix) == b"x" for fd in self.fds]

    @classmethod
    def of(cls, roots: Iterable[str], form: WhiteoutForm) -> MergedDirectory:
        """Open the root of a stack of layers.

        Args:
            roots: Their directories, topmost first.
            form: How deletions are written in them.

        Raises:
            OSError: One of them cannot be opened.
        """
        fds: list[int] = []
        try:
            for root in roots:
                fds.append(open_directory(root))
                if _opaque(fds[-1], form.xattr_prefix) == b"y":
                    break
            return cls(fds, form)
        except BaseException:
            _close(fds)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        _close(self.fds)
        self.fds = []

    def find(self, name: str) -> Found | None:
        """Return what is visible under a name, or ``None``."""
        for level, fd in enumerate(self.fds):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return None if self.is_whiteout(level, name, status) else Found(status, level)
        return None

    def enter(self, name: str) -> MergedDirectory | None:
        """Return the directory visible under a name, or ``None`` when that is something else.

        Raises:
            NotNative: It was renamed by overlayfs.
        """
        fds: list[int] = []
        try:
            for fd in self.fds:
                try:
                    fds.append(open_directory(name, parent=fd))
                except FileNotFoundError:
                    continue
                except NotADirectoryError:
                    break
                self._refuse_redirected(fds[-1], name)
                if _opaque(fds[-1], self._prefix) == b"y":
                    break
            return MergedDirectory(fds, self._form) if fds else None
        except BaseException:
            _close(fds)
            raise

    def walk(self, names: Iterable[str]) -> MergedDirectory | None:
        """Return the directory at a path below this one, or ``None``; close it when done."""
        here: MergedDirectory | None = MergedDirectory([os.dup(fd) for fd in self.fds], self._form)
        for name in names:
            if here is None:
                return None
            with here:
                here = here.enter(name)
        return here

    def names(self) -> set[str]:
        """Return all names that are visible."""
        seen: set[str] = set()
        hidden: set[str] = set()
        for level, fd in enumerate(self.fds):
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name in seen or entry.name in hidden:
                        continue
                    if entry.is_dir(follow_symlinks=False) or entry.is_symlink():
                        seen.add(entry.name)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    (hidden if self.is_whiteout(level, entry.name, status) else seen).add(entry.name)
        return seen

    def whiteouts_among(self, types: Mapping[str, int]) -> set[str]:
        """Return which names of the topmost layer, given with their types, say that something is gone."""
        suspects = {0, stat.S_IFREG} if self._marks_by_xattr[0] else {0}
        hidden = set()
        for name in (name for name, file_type in types.items() if file_type in suspects):
            with suppress(FileNotFoundError):  # gone meanwhile: a container may be running
                status = os.stat(name, dir_fd=self.fds[0], follow_symlinks=False)
                if self.is_whiteout(0, name, status):
                    hidden.add(name)
        return hidden

    def is_whiteout(self, level: int, name: str, status: os.stat_result) -> bool:
        """Tell whether this layer's entry says that the name is gone."""
        if is_whiteout_device(status):
            return True
        if not self._marks_by_xattr[level] or status.st_size or not stat.S_ISREG(status.st_mode):
            return False
        path = f"/proc/self/fd/{self.fds[level]}/{name}"
        return read_xattr(path, self._prefix + "whiteout") is not None

    def _refuse_redirected(self, fd: int, name: str) -> None:
        if self._prefix + "redirect" in _xattr_names(fd):
            raise NotNative(f"{name}: was renamed by overlayfs (redirect_dir)")


def read_xattr(target: int | str, name: str) -> bytes | None:
    """Return an extended attribute of a descriptor or a path (links not followed), or ``None``."""
    try:
        if isinstance(target, int):
            return os.getxattr(target, name)
        return os.getxattr(target, name, follow_symlinks=False)
    except OSError:
        return None


def _opaque(fd: int, prefix: str) -> bytes | None:
    # Hardly any directory is, and to list no names costs less than the error about a missing one.
    name = prefix + "opaque"
    return read_xattr(fd, name) if name in _xattr_names(fd) else None


def _xattr_names(fd: int) -> Sequence[str]:
    try:
        return os.listxattr(fd)
    except OSError:
        return ()


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
