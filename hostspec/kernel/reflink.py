"""Copies of file content that share their blocks where the file system can (ioctl_ficlone(2)).

No capability is needed. xfs (made with ``reflink=1``, the default) and btrfs can; ext4 cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from enum import Enum

__all__ = ["CopyWay", "copy_content", "reflink", "supports_reflinks"]

_FICLONE = 0x4004_9409

_CHUNK_BYTES = 1024 * 1024
_KERNEL_CHUNK_BYTES = 0x4000_0000

_CANNOT = frozenset(
    (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.ETXTBSY)
)
"""What FICLONE and copy_file_range answer where another way may still work."""


class CopyWay(Enum):
    """How content was copied."""

    REFLINK = "reflink"
    """Nothing was copied: both files share their blocks."""
    COPY_FILE_RANGE = "copy_file_range"
    """The kernel copied, without passing the bytes through this process."""
    READ_WRITE = "read/write"
    """This process read and wrote the bytes."""


def reflink(source_fd: int, target_fd: int) -> None:
    """Give a file the content of another by sharing all its blocks, holes included.

    Args:
        source_fd: Open for reading.
        target_fd: Open for writing, on the same file system; what it held is replaced.

    Raises:
        OSError: EOPNOTSUPP or EINVAL where the file system cannot, EXDEV between two of them.
    """
    fcntl.ioctl(target_fd, _FICLONE, source_fd)


def copy_content(source_fd: int, target_fd: int, size: int) -> CopyWay:
    """Copy a file's content into an empty file, by the cheapest way that works here; holes stay holes.

    Args:
        source_fd: Open for reading; its file offset changes.
        target_fd: Open for writing, empty; its file offset stays.
        size: Size of the source in bytes, and afterwards of the target, also where the source shrinks
            meanwhile (the rest is a hole).

    Returns:
        How the content was copied: the costliest way that was needed.

    Raises:
        OSError: Reading or writing failed (ENOSPC, EDQUOT, EIO …); the target holds a part.
    """
    if size == 0:
        return CopyWay.REFLINK
    try:
        reflink(source_fd, target_fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    else:
        return CopyWay.REFLINK
    way = CopyWay.COPY_FILE_RANGE
    position = 0
    while (segment := _next_data(source_fd, position, size)) is not None:
        start, position = segment
        if way is CopyWay.COPY_FILE_RANGE:
            start = _copy_in_kernel(source_fd, target_fd, start, position)
        if start < position:
            way = CopyWay.READ_WRITE
            _copy_by_hand(source_fd, target_fd, start, position)
    os.ftruncate(target_fd, size)
    return way


def supports_reflinks(directory: str) -> bool:
    """Tell whether files in a directory can share blocks, by having two files without a name share none.

    Asking so writes nothing: file systems that cannot refuse whatever the length.

    Raises:
        OSError: No file can be made there.
    """
    with contextlib.ExitStack() as opened:
        descriptors = []
        for _ in range(2):
            descriptors.append(_nameless_file(directory))
            opened.callback(os.close, descriptors[-1])
        try:
            reflink(*descriptors)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
        return True


def _next_data(source_fd: int, position: int, size: int) -> tuple[int, int] | None:
    """Return start and end of the next bytes that are not a hole, or ``None`` after the last."""
    if position >= size:
        return None
    try:
        start = os.lseek(source_fd, position, os.SEEK_DATA)
        end = os.lseek(source_fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        if error.errno != errno.EINVAL:
            raise
        # A file system that does not know holes.
        return position, size
    return (start, min(end, size)) if start < size else None


def _copy_in_kernel(source_fd: int, target_fd: int, start: int, end: int) -> int:
    """Copy as much as copy_file_range can, and return where it stopped."""
    while start < end:
        try:
            copied = os.copy_file_range(
                source_fd, target_fd, min(end - start, _KERNEL_CHUNK_BYTES), start, start
            )
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            break
        if copied == 0:
            # The end of a file that shrank; or a file system that answers so instead of refusing.
            break
        start += copied
    return start


def _copy_by_hand(source_fd: int, target_fd: int, start: int, end: int) -> None:
    while start < end:
        content = os.pread(source_fd, min(end - start, _CHUNK_BYTES), start)
        if not content:
            return
        # A write may be cut short, by a signal or just before a limit.
        start += os.pwrite(target_fd, content, start)


def _nameless_file(directory: str) -> int:
    """Open a new file that nobody else sees."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    path = f"{directory}/.hostspec-probe-{os.urandom(8).hex()}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return descriptor
