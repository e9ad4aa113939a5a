"""Files of accounts that come with an image: ``/etc/passwd`` and ``/etc/group`` (passwd(5), group(5)).

They are opened as if the container's root were the root directory, so that no link in it leads outside,
and nothing but a plain file is read, and not more than a part of a very large one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hostspec.kernel.resolve import open_in_root

__all__ = ["account_rows"]

_MOST_BYTES = 4 << 20


def account_rows(root: str, path: str) -> Iterator[list[str]]:
    """Yield the lines of a file in a root directory, split at colons; none where there is no such file.

    Args:
        root: The root directory.
        path: The file in it.
    """
    for line in _content(root, path).decode("utf-8", "surrogateescape").splitlines():
        if line and not line.startswith("#"):
            yield line.split(":")


def _content(root: str, path: str) -> bytes:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Not waiting: what the image calls passwd may be a pipe.
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    finally:
        os.close(root_fd)
    with open(fd, "rb") as file:
        return file.read(_MOST_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
