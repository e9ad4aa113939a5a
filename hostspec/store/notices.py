"""Warnings of the store: what people should know, and no caller would act on.

They are records of Python's logging, by the logger ``hostspec.store``, unless a program asks for their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["LOGGER", "warn", "warnings_told"]

LOGGER = "hostspec.store"
"""Name of the logger."""

_listeners: list[Callable[[str], None]] = []


def warn(text: str) -> None:
    """Tell people something: whoever listens last, or else the log."""
    if _listeners:
        _listeners[-1](text)
        return
    import logging  # noqa: PLC0415 - costs start-up time, and most commands have nothing to tell

    logging.getLogger(LOGGER).warning("%s", text)


@contextmanager
def warnings_told(listener: Callable[[str], None]) -> Iterator[None]:
    """Have the warnings of all threads told to a function, and not logged, for the time of a ``with`` block.

    A program that prints them anyway is spared importing logging.

    Args:
        listener: Takes a text of one line; called from the thread that warns.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
