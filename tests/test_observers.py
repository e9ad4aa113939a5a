"""Who is told of driver operations: chosen by name, never in the way, and what the built-in ones record."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Unknown
from hostspec.observers import Operation, observed
from hostspec.observers.log import LOGGER, OperationLog
from hostspec.observers.selection import VARIABLE, chosen_observers, installed_observers
from hostspec.plugins import open_driver
from hostspec.values import LayerRef

MODULE = """
class Counter:
    seen = []

    def started(self, operation):
        self.seen.append(operation.name)

    def finished(self, operation, error):
        pass


def broken():
    raise RuntimeError("no")
"""


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an observer that somebody else's distribution brings; ``broken`` is another."""
    site = tmp_path / "site"
    facts = site / "odd_observers-1.0.dist-info"
    facts.mkdir(parents=True)
    lines = ("[hostspec.observers]", "counter = odd_observers:Counter", "broken = odd_observers:broken")
    (facts / "entry_points.txt").write_text("\n".join(lines))
    (site / "odd_observers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    return "counter"


def opened(tmp_path: Path) -> GraphDriver:
    return open_driver("vfs", home=str(tmp_path / "home"), run_root=str(tmp_path / "run"))


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
    ("name", "said"), [("nobody", "no installed distribution"), ("broken", "cannot be used: no")]
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
    names = [
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    assert names == [DURATION]
    tracers.shutdown()
    meters.shutdown()
