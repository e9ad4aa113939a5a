"""Child processes of a test: as other users, at once, and killed or refused in the middle of their work.

Forked, so that they need neither an interpreter's start nor anything that is installed. A child does
its work and ends at once: what would happen at the exit of pytest does not happen there.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Work", "do_at_once", "do_in_as_user", "killed_before_step", "refused_from_step"]

Work = Callable[[], object]

_MOST_OF_A_MESSAGE: Final = 60_000
"""What a pipe takes, in bytes, while nobody reads."""

_STEPS: Final = frozenset(
    {
        "fcntl.ioctl",
        "os.chmod",
        "os.chown",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.removexattr",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "subprocess.Popen",
    }
)
"""Audit events of Python after which something on disk is no longer what it was."""
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def do_in_as_user(directory: str, uid: int, gid: int, work: Work) -> None:
    """Do something in a directory as another user, who has no other group and no capability.

    The way to the directory may be closed to that user.
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)

    def as_user() -> None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        os.fchdir(descriptor)
        work()

    try:
        _wait_for(_fork(as_user))
    finally:
        os.close(descriptor)


def do_at_once(works: Sequence[Work]) -> None:
    """Do several things at the same time, each in a process of its own; fail if one does."""
    for child in [_fork(work) for work in works]:
        _wait_for(child)


def killed_before_step(step: int, work: Work) -> bool:
    """Do something in a process that is killed right before its ``step``-th change of anything on disk.

    Returns:
        True if it was killed, False if the work was over before.

    Raises:
        AssertionError: The work failed.
    """

    def die(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def until_step() -> None:
        _before_each_step(die)
        work()

    return _wait_for(_fork(until_step), may_be_killed=True)


def refused_from_step(step: int, work: Work) -> bool:
    """Do something in a process for which everything on disk is read-only from its ``step``-th change on.

    Returns:
        True if something was refused, False if the work was over before.

    Raises:
        AssertionError: The work failed.
    """
    refused: list[int] = []

    def refuse(number: int) -> None:
        if number >= step:
            refused.append(number)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def from_step() -> None:
        _before_each_step(refuse)
        work()
        if refused:
            os.kill(os.getpid(), signal.SIGKILL)  # which tells the parent so

    return _wait_for(_fork(from_step), may_be_killed=True)


def _before_each_step(act: Callable[[int], None]) -> None:
    """Have something done before this process takes a step, told its number; it cannot be taken back."""
    steps = itertools.count(1)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        # Threads count together, and so that none misses its number.
        if event in _STEPS or (event == "open" and _opens_for_writing(arguments)):
            act(next(steps))

    sys.addaudithook(hook)


def _opens_for_writing(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and flags & _WRITING != 0


def _fork(work: Work) -> tuple[int, int]:
    """Start a child; return its process ID and a pipe that gives the reason why it failed."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Whatever threads pytest's plugins have: the child needs none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - a child of pytest must not return into it
        os.write(writing, traceback.format_exc().encode("utf-8", "replace")[-_MOST_OF_A_MESSAGE:])
    finally:
        os._exit(status)


def _wait_for(child: tuple[int, int], *, may_be_killed: bool = False) -> bool:
    """Wait for a child's end; return whether it was killed."""
    process, reading = child
    with open(reading, "rb") as opened:
        reason = opened.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status == -signal.SIGKILL and may_be_killed:
        return True
    if status != 0:
        told = reason.decode("utf-8", "replace").strip()
        _, _, error = told.rpartition("\n")
        raise AssertionError(f"a child process failed ({status}):\n{error}\n{told}")
    return False
