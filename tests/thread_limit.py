"""A process that may have no more threads, as under a limit of a control group."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MORE_THAN_THERE_IS = 1 << 47
"""Bytes for the stack of each thread; a process has fewer addresses."""


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Let no thread start in the block."""
    before = threading.stack_size(_MORE_THAN_THERE_IS)
    try:
        yield
    finally:
        threading.stack_size(before)
