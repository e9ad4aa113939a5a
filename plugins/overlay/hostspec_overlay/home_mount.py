"""The home, mounted on itself as the Go library does it.

That library binds its home on itself whenever it opens a store, without what is mounted below.
Whatever we had mounted there before would be hidden from then on: it could be neither seen nor
unmounted. So the home is made such a mount before anything is mounted in it, unless the user says
``skip_mount_home``; and that mount is taken away after the last one in it.

When that library opens a store, it first tries what the kernel can, by mounts in the home. Whoever bound
the home on itself meanwhile would hide them, and they would stay for ever. It has ``storage.lock`` then, so
the home is bound and unbound by whoever holds that lock.

A rename in the home that falls into such a moment fails, since its two ends are seen through different
mounts; :func:`despite_mounts` does it again.

Source: ``drivers/overlay/overlay.go`` (``Init``) and ``pkg/mount/sharedsubtree_linux.go`` in
containers/storage.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hostspec.kernel import filelocks
from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.self_binds import bind_on_itself, unbind_from_itself

__all__ = ["bind_home", "despite_mounts", "unbind_home"]

Renamed = TypeVar("Renamed")

_SECONDS_TO_WAIT = 0.1
_SECONDS_BETWEEN_LOOKS = 0.001


def bind_home(home: str) -> None:
    """Mount the home on itself, if it is no mount and nothing is mounted in it.

    Where somebody opens the store with the Go library just now, that is waited for: it binds the home itself.
    But not for long, since it may have to wait in turn for a lock that our caller holds.

    Raises:
        OSError: The kernel refused.
    """
    real = os.path.realpath(home)
    end = time.monotonic() + _SECONDS_TO_WAIT
    while not mount_points(real):
        with _locked_if_free(home) as locked:
            if locked or time.monotonic() > end:
                bind_on_itself(home)
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def unbind_home(home: str) -> None:
    """Unmount the home from itself, unless something is mounted in it or somebody opens the store just now.

    Raises:
        OSError: The kernel refused.
    """
    with _locked_if_free(home) as locked:
        if locked:
            unbind_from_itself(home)


@contextmanager
def _locked_if_free(home: str) -> Iterator[bool]:
    """Hold the lock that the Go library holds while it opens a driver; tell whether it could be had."""
    path = os.path.join(os.path.dirname(home), "storage.lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no store, or none that we may lock
        yield True
        return
    try:
        locked = filelocks.lock(fd, exclusive=True, wait=False)
        try:
            yield locked
        finally:
            if locked:
                filelocks.unlock(fd)  # whatever child has the descriptor, too
    finally:
        os.close(fd)


def despite_mounts(rename: Callable[[], Renamed]) -> Renamed:
    """Rename within the home, even if somebody mounts or unmounts the home just now; return its result.

    Raises:
        OSError: The kernel refused.
    """
    try:
        return rename()
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return rename()
