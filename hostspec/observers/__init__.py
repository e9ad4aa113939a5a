"""Observers: those who are told of every driver operation, for tracing and timing.

The façade tells them, not a hook wrapper: an observer that fails must not be able to
replace the result of an operation that succeeded.

``selection`` finds the installed ones; ``log`` and ``telemetry`` are those that hostspec brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

__all__ = ["Observer", "Operation", "observed"]


class Operation(NamedTuple):
    """One call of a driver."""

    driver: str
    """The driver's name."""
    name: str
    """The hook's name."""
    layer_id: str
    """The layer it is about, or ``""``."""


class Observer(Protocol):
    """Is told when an operation starts and when it has finished; what it raises is logged and dropped.

    It is told of both with the same object, and of several operations at once, by their threads.
    """

    def started(self, operation: Operation) -> None:
        """Take note that ``operation`` starts, in the thread that works."""

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        """Take note that ``operation`` has ended: in ``error``, or well. A stream ends when it is closed."""


@contextmanager
def observed(observers: Sequence[Observer], operation: Operation) -> Iterator[None]:
    """Tell ``observers`` that the body of this context is ``operation``."""
    for observer in observers:
        _tell(observer, operation, "started")
    error: BaseException | None = None
    try:
        yield
    except GeneratorExit:
        # Whoever asked for changes has seen enough of them.
        raise
    except BaseException as raised:
        error = raised
        raise
    finally:
        for observer in observers:
            _tell(observer, operation, "finished", error)


def _tell(observer: Observer, operation: Operation, event: str, *details: BaseException | None) -> None:
    try:
        getattr(observer, event)(operation, *details)
    except (Exception, SystemExit):
        import logging  # noqa: PLC0415 - costs start-up time that only a failure is worth

        logging.getLogger(__name__).exception("%r failed on %s of %s", observer, event, operation)
