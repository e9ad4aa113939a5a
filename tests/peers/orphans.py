"""Waiting for what a program leaves running behind it.

podman leaves conmon, which runs ``podman container cleanup`` when the container has ended: after ``podman
run`` has returned, the store is still in use. A *subreaper* becomes the parent of such orphans
(prctl(2), PR_SET_CHILD_SUBREAPER), so it sees them end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.kernel.syscalls import check, libc

__all__ = ["waiting_for_orphans"]

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_WAIT = 60.0  # seconds
_PAUSE = 0.01  # seconds
_PARENT = 1  # index of the parent's ID in /proc/PID/stat, after the name, which may hold anything


@contextmanager
def waiting_for_orphans() -> Iterator[None]:
    """Wait, at the end of the block, until every process that was started in it has ended.

    Raises:
        TimeoutError: One of them has not.
    """
    before = _children()
    check(libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    try:
        yield
    finally:
        _wait_for_all(before)
        check(libc().prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))


def _wait_for_all(spared: set[int]) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT
    while orphans := _children() - spared:
        for child in orphans:
            os.waitpid(child, os.WNOHANG)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes still run: {sorted(orphans)}")
        time.sleep(_PAUSE)


def _children() -> set[int]:
    """Return the IDs of this process's children; the kernel's own list of them is not always built in."""
    return {int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent(name) == os.getpid()}


def _parent(process: str) -> int | None:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[_PARENT])
    except (FileNotFoundError, ProcessLookupError):
        return None
