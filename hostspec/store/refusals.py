"""What the operating system refuses, in hostspec's own errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.errors import DriverFailed, StoreReadOnly

__all__ = ["refusals"]

_MAY_NOT_WRITE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def refusals(doing: str, path: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an error of hostspec's tree.

    Args:
        doing: ``"read"`` or ``"write"``.
        path: The file.

    Raises:
        StoreReadOnly: It may not be written, by this user or at all.
        DriverFailed: The operating system refused for another reason.
    """
    try:
        yield
    except OSError as error:
        if doing == "write" and error.errno in _MAY_NOT_WRITE:
            raise StoreReadOnly(os.path.dirname(path), f"cannot be written: {error.strerror}") from error
        raise DriverFailed(f"{doing} {path}", error) from error
