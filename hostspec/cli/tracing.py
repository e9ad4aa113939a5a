"""What ``--debug`` shows: each driver operation on standard error, with its duration."""

from __future__ import annotations

import sys
import threading
import time

from hostspec.observers import Operation

__all__ = ["StderrTrace"]


class StderrTrace:
    """An observer that writes a line for each operation that ends."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._starts = threading.local()

    def started(self, operation: Operation) -> None:
        """Remember when; operations nest within a thread."""
        del operation
        self._stack().append(time.perf_counter())

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        """Write what it was, how long it took, and how it failed."""
        milliseconds = (time.perf_counter() - self._stack().pop()) * 1000
        outcome = f" failed: {error}" if error else ""
        layer = f" {operation.layer_id}" if operation.layer_id else ""
        sys.stderr.write(f"{operation.driver} {operation.name}{layer}: {milliseconds:.2f} ms{outcome}\n")

    def _stack(self) -> list[float]:
        if not hasattr(self._starts, "stack"):
            self._starts.stack = []
        return self._starts.stack  # type: ignore[no-any-return]
