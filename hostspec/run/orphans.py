"""Processes that a run has left behind: those of a runtime whose owner was killed while it worked.

Such a runtime goes on, may be about to make namespaces, and is in no control group yet. It is found by its
command line, which names the run's directory.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

__all__ = ["kill_and_wait", "kill_orphans"]

_HOOK = "hostspec.run.network"


def kill_orphans(directory: str, runtime: str) -> None:
    """Kill the processes of a run that nobody owns any more, and wait until they have ended.

    Args:
        directory: The run's directory.
        runtime: Path of its runtime.
    """
    # A look that finds none ends it: what one starts while it is killed is found by the next look.
    while found := [each for each in _processes() if _belongs(each, directory, runtime)]:
        for process in found:
            kill_and_wait(process, partial(_belongs, process, directory, runtime))


def kill_and_wait(process: int, is_meant: Callable[[], bool]) -> None:
    """Kill a process, and wait until it has ended; one that is not there has ended.

    Args:
        process: Its ID.
        is_meant: Tells whether a process of that ID is still one to kill. Asked when the ID can go to no
            other any more, or it would go to one that has nothing to do with it.
    """
    try:
        fd = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if not is_meant():
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [])
    finally:
        os.close(fd)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _belongs(process: int, directory: str, runtime: str) -> bool:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
    except OSError:
        return False  # it has ended, or is nobody's business
    # A runtime that is a script comes after its interpreter, and that one's option.
    return directory in words and (runtime in words[:3] or _HOOK in words)
