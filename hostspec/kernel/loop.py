"""Scratch file systems on sparse files, for demonstrations, benchmarks and tests.

Needs CAP_SYS_ADMIN, loop devices, and the ``mkfs`` of the wanted kind. Meant for a
private mount namespace (:func:`hostspec.kernel.mounts.private_mount_namespace`): the image file is
deleted as soon as it is mounted and the loop device frees itself, so that whatever ends
the process, only an empty directory can be left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from hostspec.kernel.mounts import unmount_all

__all__ = ["MINIMUM_BYTES", "loop_filesystem"]

_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}

_PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mount": "mount",
}

MINIMUM_BYTES = {"ext4": 1 << 20, "xfs": 300 << 20, "btrfs": 114 << 20}
"""Smallest size that each ``mkfs`` takes, in bytes; the file is sparse, so a large one costs little."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where ``mkfs`` is, which an ordinary PATH may leave out."""


@contextlib.contextmanager
def loop_filesystem(kind: str, directory: str, *, size_bytes: int) -> Iterator[str]:
    """Make an empty file system on a sparse file, and mount it while the context lasts.

    At its end everything below is unmounted, and nothing is left in ``directory``.

    Args:
        kind: ``"ext4"``, ``"xfs"`` or ``"btrfs"``.
        directory: Where the mount point is made; its file system holds the content meanwhile.
        size_bytes: Size of the new file system, at least ``MINIMUM_BYTES[kind]``.

    Yields:
        The mount point.

    Raises:
        FileNotFoundError: A program is missing; says which package has it.
        OSError: A program failed (with its own words), or the kernel refused.
        ValueError: An unknown kind, or a size that is too small.
    """
    if kind not in _MKFS:
        raise ValueError(f"{kind!r} is none of {', '.join(_MKFS)}")
    if size_bytes < MINIMUM_BYTES[kind]:
        raise ValueError(f"{kind} needs at least {MINIMUM_BYTES[kind]} bytes, not {size_bytes}")
    mount_point = f"{directory}/{kind}-{os.urandom(6).hex()}"
    os.mkdir(mount_point, 0o700)
    with contextlib.ExitStack() as undo:
        undo.callback(os.rmdir, mount_point)
        undo.callback(unmount_all, os.path.realpath(mount_point))
        _mount_new(kind, f"{mount_point}.img", mount_point, size_bytes)
        yield mount_point


def _mount_new(kind: str, image: str, mount_point: str, size_bytes: int) -> None:
    try:
        with open(image, "xb") as file:
            file.truncate(size_bytes)
        _run(*_MKFS[kind], image)
        # The kernel frees the loop device when the mount ends: mount(8) asks it to.
        _run("mount", "-t", kind, "-o", "loop", image, mount_point)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)


def _run(program: str, *arguments: str) -> None:
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    if found is None:
        message = f"the program {program} is missing; install the package {_PACKAGES[program]}"
        raise FileNotFoundError(message)
    finished = subprocess.run(
        (found, *arguments), capture_output=True, text=True, check=False, errors="replace"
    )
    if finished.returncode:
        raise OSError(f"{program}: {finished.stderr.strip() or f'exit status {finished.returncode}'}")
