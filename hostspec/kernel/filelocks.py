"""Record locks over whole files that belong to an open file, not to a process (fcntl(2), "OFD locks").

They exclude the classic record locks (``F_SETLK``) that other programs hold on the same file, and
each other where a file was opened twice, also within one process: unlike the classic
ones they are safe with threads. A lock ends with the last descriptor of its opening, hence a
forked child that keeps the descriptor keeps the lock. No capability is needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

__all__ = ["lock", "locked_elsewhere", "unlock"]

# struct flock of 64-bit Linux: type, whence, start, length (0: to the end, however far), process.
_FLOCK = struct.Struct("@hhqqi0q")


def lock(fd: int, *, exclusive: bool, wait: bool = True) -> bool:
    """Lock a whole file; a lock that is held already becomes the wanted kind.

    Waiting lets other threads run, and a signal handler that raises ends it.

    Args:
        fd: Open for writing where the lock is exclusive, for reading otherwise.
        exclusive: Share it with nobody, or with other shared locks.
        wait: Wait for others, or give up at once.

    Returns:
        Whether the lock is held now; always true after waiting.

    Raises:
        OSError: EBADF for a descriptor of the wrong mode, EDEADLK, ENOLCK.
    """
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(fd, command, _whole_file(kind))
    except OSError as error:
        if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(fd: int) -> None:
    """Release the lock, also for every descriptor that was inherited or duplicated from this one."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))


def locked_elsewhere(fd: int, *, exclusive: bool = True) -> bool:
    """Tell whether somebody holds a lock that would make :func:`lock` wait."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK))
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def _whole_file(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)
