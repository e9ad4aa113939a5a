"""Pytest plugin: says at the end what was not tested here, each reason once with the number of tests.

pytest's own list (``-rs``) has a line for each place in the source that skips, which is hundreds of them.
"""

from __future__ import annotations

from collections import Counter

import pytest

_PREFIX = "Skipped: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the reasons, the one that rules out most first."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        _, _, reason = report.longrepr
        reasons[reason.removeprefix(_PREFIX)] += 1
    if not reasons:
        return
    terminalreporter.section("not tested here, and why")
    for reason, tests in reasons.most_common():
        terminalreporter.write_line(f"{tests:5}  {reason}")
