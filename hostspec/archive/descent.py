"""The directories on the way down to where a walk through a tree is.

They stay open, so that each is opened once, relative to the one above it, however long its path has become.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from hostspec.kernel.resolve import open_in_root

__all__ = ["Descent"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_OPEN = 48


class Descent:
    """Opens directories of one tree, which is never left; those on the way stay open, the last 48 of them."""

    def __init__(self, root: str) -> None:
        """Open the root.

        Raises:
            OSError: It is no directory that can be opened.
        """
        self.root = os.open(root, _DIRECTORY)
        """Descriptor of the root."""
        self._way: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave_for("")
        os.close(self.root)

    def enter(self, path: str) -> int:
        """Return a descriptor of a directory; it stays open until one is entered that lies outside.

        Args:
            path: Absolute within the tree; ``""`` is the root. Links in it lead on within the tree.

        Raises:
            OSError: As open(2) does.
        """
        way = self._way
        if not way or way[-1][0] != path:
            self._leave_for(path)
            if not path:
                return self.root
            if not way or way[-1][0] != path:
                self._add(path, open_in_root(self.root, path, _DIRECTORY))
        return way[-1][1]

    def enter_child(self, path: str) -> int:
        """Do the same with what must be a directory itself, no link to one.

        Raises:
            OSError: As open(2) does; NotADirectoryError for everything else.
        """
        above, _, name = path.rpartition("/")
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.enter(above))
        self._add(path, fd)
        return fd

    def _add(self, path: str, fd: int) -> None:
        self._way.append((path, fd))
        if len(self._way) > _MOST_OPEN:
            os.close(self._way.pop(0)[1])

    def _leave_for(self, path: str) -> None:
        """Close what does not lead to a directory."""
        way = self._way
        while way and not f"{path}/".startswith(f"{way[-1][0]}/"):
            os.close(way.pop()[1])
