"""Permission bits of a name, never of what a link leads to.

chmod(2) follows links, and fchmodat2(2), which need not, came with Linux 6.6 only. So whoever can put a link
in the place of a file, between a look at it and the change, could choose whose permissions change.
"""

from __future__ import annotations

import os

__all__ = ["change_mode"]


def change_mode(path: str | bytes, mode: int, *, dir_fd: int | None = None) -> None:
    """Set the permission bits, set-ID bits among them, of what a path names itself.

    Needs ``/proc``. The file is not opened for reading or writing, so it may be a device or a fifo.

    Args:
        path: Links are followed in its directories, and not at its end.
        mode: Permission, set-ID and sticky bits.
        dir_fd: The directory in which a relative path begins, instead of the working directory.

    Raises:
        OSError: The operating system refused; EOPNOTSUPP for a symbolic link.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)
