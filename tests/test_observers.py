"""Who is told of driver operations: chosen by name, never in the way, and what the built-in ones record."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Unknown
from hostspec.observers import Observer, Operation, observed
from hostspec.observers.log import LOGGER, OperationLog
from hostspec.observers.selection import VARIABLE, chosen_observers, installed_observers
from hostspec.plugins import open_driver
from hostspec.values import Change, LayerRef

MODULE = """
import sys


class Counter:
    seen = []

    def started(self, operation):
        self.seen.append(operation.name)

    def finished(self, operation, error):
        pass


def broken():
    raise RuntimeError("no")


def leaves():
    sys.exit("not here")
"""


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an observer that somebody else's distribution brings, beside others that cannot be made."""
    site = tmp_path / "site"
    facts = site / "odd_observers-1.0.dist-info"
    facts.mkdir(parents=True)
    made_by = {
        "counter": "odd_observers:Counter",
        "broken": "odd_observers:broken",
        "leaves": "odd_observers:leaves",
        "missing": "odd_observers_that_nobody_wrote:Counter",
    }
    lines = ["[hostspec.observers]", *(f"{name} = {what}" for name, what in made_by.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    (site / "odd_observers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    return "counter"


def opened(tmp_path: Path, *observers: Observer) -> GraphDriver:
    home, run_root = str(tmp_path / "home"), str(tmp_path / "run")
    return open_driver("vfs", home=home, run_root=run_root, observers=observers)


def test_nobody_is_told_who_was_not_asked_for(counter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert counter in [each.name for each in installed_observers()]
    assert chosen_observers() == []


def test_an_installed_observer_is_told_of_operations(
    counter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, counter)
    driver = opened(tmp_path)
    driver.exists("a")
    (observer,) = driver._observers
    assert vars(type(observer))["seen"][-1:] == ["exists"]


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no installed distribution"),
        ("broken", "cannot be used: no"),
        ("leaves", "cannot be used: not here"),
        ("missing", "cannot be used: No module named"),
    ],
)
def test_an_observer_that_cannot_be_had_is_logged_and_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
) -> None:
    monkeypatch.setenv(VARIABLE, f" {name} , log")
    driver = opened(tmp_path)
    assert [type(each) for each in driver._observers] == [OperationLog]
    assert said in caplog.text


class Raising:
    """Fails at each event, in one way."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def started(self, operation: Operation) -> None:  # noqa: ARG002 - as observers are called
        raise self.error

    def finished(self, operation: Operation, error: BaseException | None) -> None:  # noqa: ARG002
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit("no")], ids=["raises", "leaves"])
def test_an_observer_that_fails_breaks_no_operation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    driver = opened(tmp_path, Raising(error), OperationLog())

    driver.create("layer")
    driver.commit("layer")

    assert driver.exists("layer")
    with driver.diff(LayerRef("layer"), None) as stream:
        assert stream.read()
    assert "failed on started" in caplog.text
    assert "failed on finished" in caplog.text
    assert "vfs commit layer: " in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_changes_that_nobody_wants_to_see_to_their_end_have_not_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    driver = opened(tmp_path, OperationLog())
    driver.create("layer")
    driver.commit("layer")
    with driver.mounted("layer", read_only=False) as root:
        for name in "ab":
            Path(root, name).touch()

    with closing(cast("Generator[Change, None, None]", driver.changes(LayerRef("layer")))) as changes:
        assert next(changes).path == "/a"

    (record,) = (each for each in caplog.records if vars(each).get("operation") == "changes")
    assert record.levelno == logging.INFO


def test_the_log_has_each_operation_with_its_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "log")
    caplog.set_level(logging.INFO, LOGGER)
    driver = opened(tmp_path)
    driver.exists("a")
    with pytest.raises(Unknown):
        driver.mount("b")
    good, bad = [record for record in caplog.records if record.name == LOGGER][-2:]
    assert (good.levelno, bad.levelno) == (logging.INFO, logging.WARNING)
    assert vars(good)["driver"] == "vfs"
    assert (vars(good)["operation"], vars(good)["layer_id"]) == ("exists", "a")
    assert vars(good)["seconds"] >= 0
    assert bad.getMessage().startswith("vfs mount b: ")
    assert "failed: " in bad.getMessage()


def test_the_log_keeps_operations_apart_that_overlap(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    observer, inside, seen = OperationLog(), threading.Event(), threading.Event()

    def other() -> None:
        with observed([observer], Operation("vfs", "diff", "same")):
            inside.set()
            assert seen.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60)
    with observed([observer], Operation("vfs", "diff", "same")):
        pass
    seen.set()
    thread.join()
    assert len(caplog.records) == 2


def test_what_comes_after_a_stream_that_another_thread_closed_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only this test
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setenv(VARIABLE, "telemetry")
    driver = opened(tmp_path)
    driver.create("a")

    stream = driver.diff(LayerRef("a"), None)
    stream.__enter__()
    closing_it = threading.Thread(target=stream.__exit__, args=(None, None, None))
    closing_it.start()
    closing_it.join()
    exporter.clear()
    driver.exists("a")

    assert [span.parent for span in exporter.get_finished_spans()] == [None]
    tracers.shutdown()


def test_telemetry_has_a_span_and_a_duration_for_each_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import metrics, trace  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - only this test
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

    from hostspec.observers.telemetry import DURATION  # noqa: PLC0415

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    monkeypatch.setenv(VARIABLE, "telemetry")

    driver = opened(tmp_path)
    driver.create("a")
    with driver.diff(LayerRef("a"), None) as stream:
        stream.read()
    with pytest.raises(Unknown):
        driver.mount("b")

    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"vfs.create", "vfs.diff", "vfs.mount"} <= set(spans)
    attributes = spans["vfs.mount"].attributes
    assert attributes is not None
    assert attributes["error.type"] == "Unknown"
    assert attributes["hostspec.layer"] == "b"
    assert not spans["vfs.mount"].status.is_ok
    data = reader.get_metrics_data()
    assert data is not None
    (histogram,) = (
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    assert (histogram.name, histogram.unit) == (DURATION, "s")
    # Operations take milliseconds, and a bucket that all of them fall into would say nothing.
    bounds = {tuple(getattr(point, "explicit_bounds")) for point in histogram.data.data_points}  # noqa: B009
    assert all(sum(bound < 0.01 for bound in each) > 3 for each in bounds)
    tracers.shutdown()
    meters.shutdown()
