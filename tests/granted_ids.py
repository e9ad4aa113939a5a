"""Which subordinate IDs the machine grants, for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hostspec.kernel.mounts import bind, unmount

__all__ = ["granted_ids"]


@contextmanager
def granted_ids(file: Path, text: str) -> Iterator[None]:
    """Show a file in the place of ``/etc/subuid`` and ``/etc/subgid``; later writes to it count, too.

    Args:
        file: The file, which is made.
        text: What it says at first.
    """
    file.write_text(text)
    with ExitStack() as stack:
        for path in ("/etc/subuid", "/etc/subgid"):
            bind(str(file), path)
            stack.callback(unmount, path)
        yield
