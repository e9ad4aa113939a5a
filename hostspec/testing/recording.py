"""What the suite found, gathered from pytest's reports: the pytest plugin behind ``--conformance-report``."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

from hostspec import __version__
from hostspec.errors import InvalidRequest
from hostspec.hookspecs import CONTRACT_VERSION
from hostspec.testing.rendering import renderer
from hostspec.testing.report import Facts, Finding, Findings, Outcome, Report, summary_lines
from hostspec.testing.subject import AREA, SUBJECT

__all__ = ["Recorder"]


@dataclass
class _Running:
    """A test of which some phases are over."""

    outcome: Outcome = Outcome.PASSED
    reason: str = ""
    area: str = ""
    seconds: float = 0.0


@dataclass
class _Subject:
    """A class of tests, and the driver that it tests."""

    facts: Facts = field(default_factory=dict)
    tests: dict[str, _Running] = field(default_factory=lambda: defaultdict(_Running))


class Recorder:
    """Listens to every test of the suite, in this process or in a worker of xdist."""

    def __init__(self, path: str | None) -> None:
        """Write the report to ``path`` in the end, if there is one.

        Raises:
            pytest.UsageError: Its name says nothing known of its form.
        """
        self._path = path
        try:
            self._render = None if path is None else renderer(path)
        except InvalidRequest as refusal:
            raise pytest.UsageError(str(refusal)) from refusal
        self._subjects: dict[str, _Subject] = defaultdict(_Subject)
        self._started = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in one phase of one test."""
        # JSON from a worker of xdist, the very objects from this process.
        properties: dict[str, Any] = dict(report.user_properties)
        name, _, test = report.nodeid.rpartition("::")
        subject = self._subjects[name]
        subject.facts = properties.get(SUBJECT, subject.facts)
        running = subject.tests[test]
        running.area = properties.get(AREA, running.area)
        running.seconds += report.duration
        if report.failed:
            running.outcome = Outcome.FAILED
            running.reason = _why_failed(report)
        elif report.skipped and running.outcome is Outcome.PASSED:
            running.outcome, running.reason = _why_skipped(report)

    def report(self) -> Report:
        """Return what was found so far, of classes that test a driver."""
        return Report(
            hostspec=__version__,
            contract=CONTRACT_VERSION,
            made=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._started)),
            subjects=[
                Findings(
                    name=name.rpartition("::")[2],
                    facts=subject.facts,
                    tests=[
                        Finding(test, each.area, each.outcome, each.reason, each.seconds)
                        for test, each in subject.tests.items()
                    ],
                )
                for name, subject in self._subjects.items()
                if subject.facts
            ],
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say in short what was found, skips and gaps with their reasons, and write the report."""
        report = self.report()
        for subject in report.subjects:
            title, *lines = summary_lines(subject)
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.line(line)
        if self._path is not None and self._render is not None:
            with open(self._path, "w", encoding="utf-8") as opened:
                opened.write(self._render(report))
            terminalreporter.line(f"conformance report: {self._path}")


def _why_failed(report: pytest.TestReport) -> str:
    """Return what was raised, without what pytest says around it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    first, *more = (crash.message if crash else report.longreprtext).strip().splitlines() or [""]
    return f"{first} {more[0].strip()}" if more and first.endswith(":") else first


def _why_skipped(report: pytest.TestReport) -> tuple[Outcome, str]:
    if hasattr(report, "wasxfail"):
        return Outcome.GAP, report.wasxfail.removeprefix("reason: ")
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return Outcome.SKIPPED, reason.removeprefix("Skipped: ")
