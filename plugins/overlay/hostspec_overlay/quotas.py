"""Limits on what a layer may occupy: a project of its own for each layer that has one.

The layer's directory gets the project before anything is in it, so that everything in it inherits it, as the
Go library has it (``drivers/quota/projectquota_supported.go``). Numbers are given as there: the home's own is
the least, or one made from its inode number, and the next is one more than the highest in use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hostspec.kernel.filelocks import lock
from hostspec.kernel.project_quotas import ProjectUsage, give_project, project_of, set_limits, usage
from hostspec_overlay.options import Limits

__all__ = ["ProjectLimits"]

_RANGE = 10_000  # numbers that the Go library sets apart for each home
_NUMBERS = 2**32 - 1
_WORKING_AREAS = "tempdirs"
_STAGED = "layers"


class ProjectLimits(NamedTuple):
    """The limits of layers in one home."""

    home: str
    """Absolute path of the driver's home."""
    run_root: str
    """Absolute path of the directory for what need not survive a reboot."""

    def limit(self, directory: str, limits: Limits) -> None:
        """Give an empty directory a project of its own, and limits.

        Raises:
            OSError: The file system refused.
        """
        # Two layers must not get one number, whichever processes make them.
        with self._locked():
            project = self._next_project()
            give_project(directory, project)
        set_limits(directory, project, size=limits.size, inodes=limits.inodes)

    def usage(self, directory: str) -> tuple[int | None, ProjectUsage]:
        """Return a layer's own project, if it has one, with what that occupies and may occupy.

        Raises:
            OSError: The file system refused.
        """
        project = project_of(directory)
        if not project or project == project_of(self.home):
            return None, ProjectUsage()
        return project, usage(directory, project)

    def _next_project(self) -> int:
        least = project_of(self.home)
        if not least:
            least = _RANGE + os.stat(self.home).st_ino * _RANGE % (_NUMBERS - _RANGE)
        return max([least, *map(project_of, self._layer_directories())]) + 1

    def _layer_directories(self) -> Iterator[str]:
        """Yield each directory that may have a number: layers, those being made and those being deleted."""
        yield from _subdirectories(self.home)
        for area in _subdirectories(f"{self.home}/{_WORKING_AREAS}"):
            yield from _subdirectories(area)
            yield from _subdirectories(f"{area}/{_STAGED}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(self.run_root, 0o700, exist_ok=True)
        path = f"{self.run_root}/project-numbers.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(descriptor, exclusive=True)
            yield
        finally:
            os.close(descriptor)


def _subdirectories(directory: str) -> Iterator[str]:
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path
