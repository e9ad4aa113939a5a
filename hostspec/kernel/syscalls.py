"""System calls that Python does not offer, through the C library.

The only module that imports ctypes, and it does so with the first call:
importing ctypes costs 4 ms, which most commands never need to pay.

Numbers from 424 on are the same on every architecture (Linux, ``scripts/syscall.tbl``);
older calls go through the C library's own functions, so no other number is needed.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_NO_AUTOMOUNT",
    "AT_RECURSIVE",
    "AT_SYMLINK_NOFOLLOW",
    "FSCONFIG",
    "FSMOUNT",
    "FSOPEN",
    "MOUNT_SETATTR",
    "MOVE_MOUNT",
    "OPENAT2",
    "OPEN_TREE",
    "QUOTACTL_FD",
    "buffer",
    "check",
    "exit_in_new_namespaces",
    "libc",
    "refusal",
    "syscall",
]

OPEN_TREE = 428
MOVE_MOUNT = 429
FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432
OPENAT2 = 437
MOUNT_SETATTR = 442
QUOTACTL_FD = 443

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

Argument = int | bytes | None
"""What a system call takes: a number, a pointer to constant bytes, or a null pointer."""

_CLONE_VM = 0x100
_CLONE_VFORK = 0x4000
_CHILD_STACK_BYTES = 64 * 1024
_ARGUMENTS = 6


@cache
def libc() -> ctypes.CDLL:
    """Return the C library, its functions typed as far as hostspec calls them.

    Calls release the interpreter's lock.
    """
    import ctypes  # noqa: PLC0415 - see the module's docstring
    from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p  # noqa: PLC0415

    library = ctypes.CDLL(None, use_errno=True)
    # Variadic in C, and so are numbers passed on as 64-bit: without types ctypes cuts them to 32.
    library.syscall.argtypes = (c_long, *(c_void_p,) * _ARGUMENTS)
    library.syscall.restype = c_long
    library.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
    library.umount2.argtypes = (c_char_p, c_int)
    library.unshare.argtypes = (c_int,)
    library.syncfs.argtypes = (c_int,)
    library.statfs.argtypes = (c_char_p, c_void_p)
    library.quotactl.argtypes = (c_int, c_char_p, c_int, c_void_p)
    library.statx.argtypes = (c_int, c_char_p, c_int, c_uint, c_void_p)
    return library


def buffer(size: int) -> ctypes.Array[ctypes.c_char]:
    """Return ``size`` zero bytes that a call of :func:`libc` can write into."""
    import ctypes  # noqa: PLC0415 - see the module's docstring

    return ctypes.create_string_buffer(size)


def refusal(path: str | None = None) -> OSError:
    """Return the error of the last call that this thread made through :func:`libc`.

    Args:
        path: The file that the call was about, or ``None``.
    """
    import ctypes  # noqa: PLC0415 - see the module's docstring

    number = ctypes.get_errno()
    message = os.strerror(number)
    return OSError(number, message) if path is None else OSError(number, message, path)


def check(result: int, path: str | None = None) -> int:
    """Return ``result`` of a call through :func:`libc`, or raise its OSError when it is negative."""
    if result < 0:
        raise refusal(path)
    return result


def syscall(number: int, *arguments: Argument, path: str | None = None) -> int:
    """Make a system call.

    Args:
        number: One of the numbers above.
        arguments: At most six. Bytes are passed by address and must not be written to.
        path: The file that the call is about, for the error.

    Returns:
        What the kernel returned, never negative.

    Raises:
        OSError: The kernel refused; ``ENOSYS`` when it does not know the call.
    """
    padding = (0,) * (_ARGUMENTS - len(arguments))
    result: int = libc().syscall(number, *arguments, *padding)
    if result < 0:
        raise refusal(path)
    return result


def exit_in_new_namespaces(namespaces: int) -> int:
    """Make a child process in new namespaces that exits at once, and return its process ID.

    The child shares this process's memory until it has exited (as after vfork), so
    neither the size of the process nor its other threads matter. It stays a zombie, and its
    ``/proc/PID`` usable, until the caller reaps it by waitpid(2) with ``__WALL``: it was made
    without an exit signal, hence nobody's SIGCHLD handler or ``waitpid(-1)`` takes it away.
    Block signals around the call, since a handler would run in the child, on this process's memory.

    Args:
        namespaces: ``CLONE_NEW*`` flags, OR-ed.

    Raises:
        OSError: The kernel refused; EPERM without CAP_SYS_ADMIN (for a user namespace,
            where unprivileged ones are forbidden), ENOSPC beyond the limit of namespaces.
    """
    import ctypes  # noqa: PLC0415 - see the module's docstring

    library = libc()
    stack = ctypes.create_string_buffer(_CHILD_STACK_BYTES)
    # Stacks grow downwards on all architectures that we run on, and both want them aligned to 16 bytes.
    top = (ctypes.addressof(stack) + _CHILD_STACK_BYTES) & ~0xF
    exit_at_once = ctypes.cast(library._exit, ctypes.c_void_p)  # noqa: SLF001 - the C function's name
    flags = namespaces | _CLONE_VM | _CLONE_VFORK
    return check(library.clone(exit_at_once, ctypes.c_void_p(top), ctypes.c_int(flags), ctypes.c_void_p(0)))
