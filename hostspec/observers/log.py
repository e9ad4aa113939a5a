"""The observer ``log``: each operation as a record of Python's logging, with its duration."""

from __future__ import annotations

import logging
import time

from hostspec.observers import Operation

__all__ = ["LOGGER", "OperationLog"]

LOGGER = "hostspec.operations"
"""Name of the logger."""


class OperationLog:
    """Logs each operation when it has ended: at level INFO if it went well, and else at WARNING.

    A record has the attributes ``driver``, ``operation``, ``layer_id`` and ``seconds``, for formatters
    that write something other than its message.
    """

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._logger = logging.getLogger(LOGGER)
        self._starts: dict[int, float] = {}

    def started(self, operation: Operation) -> None:
        """Remember when."""
        self._starts[id(operation)] = time.perf_counter()

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        """Log what it was, how long it took, and how it failed."""
        seconds = time.perf_counter() - self._starts.pop(id(operation))
        self._logger.log(
            logging.WARNING if error else logging.INFO,
            "%s %s%s: %.2f ms%s",
            operation.driver,
            operation.name,
            f" {operation.layer_id}" if operation.layer_id else "",
            seconds * 1e3,
            f" failed: {error}" if error else "",
            extra={
                "driver": operation.driver,
                "operation": operation.name,
                "layer_id": operation.layer_id,
                "seconds": seconds,
            },
        )
