"""Where it is measured: new file systems on loop files, so that nothing else writes to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from hostspec.kernel.filesystems import filesystem_name
from hostspec.kernel.loop import loop_filesystem
from hostspec.kernel.mounts import mount, private_mount_namespace, unmount_all

__all__ = ["Place", "place_for", "scratch"]

LOOP_BYTES = 12 << 30
"""Size of a scratch file system; its file is sparse."""


class Place(NamedTuple):
    """A file system to measure on."""

    filesystem: str
    """Its kind."""
    directory: str
    """An empty directory on it."""
    run: str
    """A directory in memory, as /run is."""


@contextlib.contextmanager
def scratch(directory: str) -> Iterator[Place]:
    """Make a directory in which everything is done, in mounts that nobody else sees.

    At its end, however that comes, nothing of it is left. Needs CAP_SYS_ADMIN.

    Args:
        directory: Where it is made.

    Yields:
        The place on the directory's own file system.
    """
    private_mount_namespace()
    top = os.path.realpath(tempfile.mkdtemp(prefix="hostspec-bench-", dir=directory))
    try:
        run, here = os.path.join(top, "run"), os.path.join(top, "here")
        os.mkdir(run)
        os.mkdir(here)
        mount("tmpfs", run, "tmpfs", data="mode=755")
        yield Place(filesystem_name(here), here, run)
    finally:
        unmount_all(top)
        shutil.rmtree(top)


@contextlib.contextmanager
def place_for(filesystem: str, base: Place) -> Iterator[Place]:
    """Give one scenario an empty file system of its own while the context lasts.

    Args:
        filesystem: Its kind.
        base: The scratch place.

    Raises:
        OSError: The file system cannot be made; says why.
    """
    with loop_filesystem(filesystem, base.directory, size_bytes=LOOP_BYTES) as directory:
        yield Place(filesystem, directory, base.run)
