"""The home, mounted on itself as the Go library does it.

That library binds its home on itself whenever it opens a store, without what is mounted below.
Whatever we had mounted there before would be hidden from then on: it could be neither seen nor
unmounted. So the home is made such a mount before anything is mounted in it, unless the user says
``skip_mount_home``; and that mount is taken away after the last one in it.

A rename in the home that falls into such a moment fails, since its two ends are seen through different
mounts; :func:`despite_mounts` does it again.

Source: ``drivers/overlay/overlay.go`` (``Init``) and ``pkg/mount/sharedsubtree_linux.go`` in
containers/storage.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

__all__ = ["despite_mounts"]

Renamed = TypeVar("Renamed")


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
