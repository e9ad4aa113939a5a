"""The observer ``telemetry``: a span and a measurement of OpenTelemetry for each operation.

Needs the extra ``hostspec[telemetry]``. What becomes of them the application says, through OpenTelemetry's
own SDK or its environment variables; without an SDK nothing is recorded.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, StatusCode

from hostspec import __version__
from hostspec.observers import Operation

__all__ = ["DURATION", "OperationTelemetry"]

DURATION = "hostspec.driver.operation.duration"
"""Name of the histogram of durations, in seconds."""

_BOUNDARIES = tuple(step * 10.0**exponent for exponent in range(-4, 2) for step in (1, 2.5, 5))
"""Of the histogram's buckets, from a tenth of a millisecond on: the SDK's own are meant for milliseconds."""


class _Running(NamedTuple):
    """An operation that has not ended."""

    span: Span
    start: float
    opened_within: list[Span]
    """The spans of the thread that started it, its own among them."""


class OperationTelemetry:
    """Makes a span ``DRIVER.OPERATION`` for each operation, and adds its duration to a histogram.

    Spans have the attributes ``hostspec.driver``, ``hostspec.operation`` and ``hostspec.layer``, the
    histogram the first two, and both ``error.type`` where the operation failed. An operation that another
    one calls in the same thread, as fallbacks do, is that one's child.
    """

    def __init__(self) -> None:
        """Ask for the application's tracer and meter."""
        self._tracer = trace.get_tracer("hostspec", __version__)
        self._duration = metrics.get_meter("hostspec", __version__).create_histogram(
            DURATION,
            unit="s",
            description="Duration of graph driver operations",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._running: dict[int, _Running] = {}
        self._nesting = _Nesting()

    def started(self, operation: Operation) -> None:
        """Begin a span."""
        parents = self._nesting.spans
        span = self._tracer.start_span(
            f"{operation.driver}.{operation.name}",
            context=trace.set_span_in_context(parents[-1]) if parents else None,
            attributes={**_attributes(operation), "hostspec.layer": operation.layer_id},
        )
        parents.append(span)
        self._running[id(operation)] = _Running(span, time.perf_counter(), parents)

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        """End it, and count how long it took."""
        span, start, opened_within = self._running.pop(id(operation))
        attributes = _attributes(operation)
        if error is not None:
            attributes["error.type"] = type(error).__qualname__
            span.set_attribute("error.type", attributes["error.type"])
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, str(error))
        span.end()
        self._duration.record(time.perf_counter() - start, attributes)
        # Not this thread's: a stream may be closed by another one than opened it.
        opened_within.remove(span)


class _Nesting(threading.local):
    """The spans that this thread is inside of."""

    def __init__(self) -> None:
        self.spans: list[Span] = []


def _attributes(operation: Operation) -> dict[str, str]:
    return {"hostspec.driver": operation.driver, "hostspec.operation": operation.name}
