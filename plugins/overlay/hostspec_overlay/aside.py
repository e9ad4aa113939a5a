"""Work in a thread of its own, which may have another working directory or another mount namespace.

Neither may ever change for the process: other threads, and callers, rely on them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from hostspec.kernel.mounts import private_mount_namespace
from hostspec.kernel.own_directory import leave_shared_directory

__all__ = ["in_directory", "in_private_namespace"]

Result = TypeVar("Result")


def in_directory(path: str, work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns in a thread whose working directory is ``path``.

    Raises:
        OSError: There is no such directory; or whatever ``work`` raises.
    """

    def enter() -> None:
        leave_shared_directory()
        os.chdir(path)

    return _aside(enter, work)


def in_private_namespace(work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns in a thread with a mount namespace, and a working directory, of its own.

    What it mounts, nobody else ever sees, and it is gone with the thread, however the process ends;
    what it returns as a descriptor of a detached mount stays.

    Raises:
        OSError: The kernel refused (EPERM without CAP_SYS_ADMIN); or whatever ``work`` raises.
    """
    return _aside(private_mount_namespace, work)


def _aside(enter: Callable[[], None], work: Callable[[], Result]) -> Result:
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(work())
        except BaseException as failure:  # noqa: BLE001 - handed on to the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=run, name="hostspec-overlay-mount")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
