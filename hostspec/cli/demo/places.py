"""The file systems on which the demo tries the drivers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from hostspec.kernel.filesystems import filesystem_name
from hostspec.kernel.loop import loop_filesystem

__all__ = ["Place", "places"]

LOOP_SIZE = 8 << 30
"""Bytes of a scratch file system; its file is sparse."""


class Place(NamedTuple):
    """A directory on some file system, or why there is none."""

    filesystem: str
    """Kind of the file system."""
    directory: str
    """Absolute path, or ``""`` where there is none."""
    reason: str = ""
    """Why there is none."""


def places(scratch: str, stack: ExitStack, *, privileged: bool) -> Iterator[Place]:
    """Yield the scratch directory's own file system, and xfs and btrfs on loop files.

    Args:
        scratch: Directory to work in.
        stack: Keeps the loop file systems mounted until it is closed.
        privileged: Whether this process may mount file systems.
    """
    yield Place(filesystem_name(scratch), os.path.abspath(scratch))
    for kind in ("xfs", "btrfs"):
        if not privileged:
            yield Place(kind, "", "only root can mount a scratch file system")
        elif shutil.which(f"mkfs.{kind}") is None:
            package = {"xfs": "xfsprogs", "btrfs": "btrfs-progs"}[kind]
            yield Place(kind, "", f"mkfs.{kind} is not installed (Debian package {package})")
        else:
            directory = stack.enter_context(loop_filesystem(kind, scratch, size_bytes=LOOP_SIZE))
            yield Place(f"{kind} (loop)", directory)
