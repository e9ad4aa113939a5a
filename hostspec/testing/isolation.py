"""Where the suite works: in a mount namespace of its own, and on a disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["fresh_directory", "isolate_mounts", "use_temporary_directory_on_disk"]

_ON_DISK = "/var/tmp"
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


@cache
def isolate_mounts() -> str:
    """Move this process into a mount namespace of its own, once.

    What a test mounts is then seen by no one else, and whatever it leaves behind goes when the run
    ends, however it ends. To be called from the main thread: a namespace is a thread's own.

    Returns:
        What came of it, for people. An ordinary user cannot mount, and goes on without.
    """
    if os.geteuid() != 0:
        return "none, because only root can mount"
    from hostspec.kernel.mounts import private_mount_namespace  # noqa: PLC0415 (ctypes, and only for root)

    try:
        private_mount_namespace()
    except PermissionError as refusal:
        return f"none, because this root may not mount ({refusal.strerror})"
    return "in a private namespace"


def use_temporary_directory_on_disk() -> None:
    """Avoid tmpfs, which has no reflinks and, on many kernels, no ``user`` extended attributes."""
    from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 (as above)

    if filesystem_name(tempfile.gettempdir()) in _IN_MEMORY:
        os.environ["TMPDIR"] = tempfile.tempdir = _ON_DISK


@contextmanager
def fresh_directory(parent: str) -> Iterator[str]:
    """Give an empty directory; unmount and delete what is in it afterwards.

    Args:
        parent: An existing directory.
    """
    from hostspec.kernel.mountinfo import mount_points  # noqa: PLC0415 (as above)
    from hostspec.kernel.mounts import unmount  # noqa: PLC0415 (as above)

    directory = tempfile.mkdtemp(dir=parent)
    # A store's root is entered by mapped users.
    os.chmod(directory, 0o755)
    try:
        yield directory
    finally:
        # Before deleting: else what a failed test left mounted would be deleted through its mount.
        for mount_point in mount_points(directory):
            unmount(mount_point, lazy=True)
        # Best effort: a read-only subvolume may stay until the whole file system goes.
        shutil.rmtree(directory, ignore_errors=True)
