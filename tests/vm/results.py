"""What runs under other kernels came to: kept as JSON, and shown as the table in ``docs/kernels.md``.

``python -m tests.vm.results`` writes the table again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tests.vm.expectations import SERIES

__all__ = ["Result", "keep", "read_report", "with_table"]

_CHECKOUT = Path(__file__).parents[2]
_PAGE = _CHECKOUT / "docs/kernels.md"
_BEGIN, _END = "<!-- results -->\n", "<!-- end of results -->\n"
_TITLES = ("Kernel", "What", "Passed", "Skipped", "Failed", "Mounts by", "ID maps by", "Date")
_OF_SERIES = {
    "plugins.overlay.tests.test_conformance": "overlay",
    "plugins.btrfs": "btrfs",
    "plugins.vfs": "vfs",
}
_QUOTAS = "project quotas"
_OUTCOMES = {"skipped": "skipped", "failure": "failed", "error": "failed"}


class Result(NamedTuple):
    """One part of a run under one kernel."""

    kernel: str
    """As ``uname -r`` has it."""
    part: str
    """A driver's suite, or something else."""
    passed: int
    skipped: int
    failed: int
    mounts: str
    """The best way of mounting that the driver found, or ``""``."""
    strategies: str
    """The ways of giving a container an ID map that it found, or ``""``."""
    date: str
    """The day, ISO 8601."""


def read_report(text: str, kernel: str) -> Sequence[Result]:
    """Understand the report that pytest wrote as JUnit XML; none says nothing."""
    counts: dict[str, Counter[str]] = {}
    facts: dict[str, dict[str, str]] = {}
    for case in ET.fromstring(text).iter("testcase") if text else ():  # noqa: S314 - our guest's
        found = {each.get("name", ""): each.get("value", "") for each in case.iter("property")}
        if "driver" in found:
            facts[found["driver"]] = found
        name = case.get("classname", "")
        part = next((part for prefix, part in _OF_SERIES.items() if name.startswith(prefix)), _QUOTAS)
        outcome = next((_OUTCOMES[each.tag] for each in case if each.tag in _OUTCOMES), "passed")
        counts.setdefault(found.get("driver", part), Counter())[outcome] += 1
    return [
        Result(
            kernel=kernel,
            part=part,
            passed=count["passed"],
            skipped=count["skipped"],
            failed=count["failed"],
            mounts=facts.get(part, {}).get("mounts", ""),
            strategies=facts.get(part, {}).get("strategies", ""),
            date=datetime.now(UTC).date().isoformat(),
        )
        for part, count in sorted(counts.items())
    ]


def keep(results: Sequence[Result], series: str) -> None:
    """Keep the results of a series in place of those of its last run."""
    place = _directory()
    place.mkdir(parents=True, exist_ok=True)
    content = json.dumps([each._asdict() for each in results])
    (place / f"{series}.json").write_text(content, encoding="utf-8")


def _kept() -> Iterator[Result]:
    for series in SERIES:
        path = _directory() / f"{series}.json"
        if path.exists():
            yield from (Result(**each) for each in json.loads(path.read_text(encoding="utf-8")))


def _directory() -> Path:
    return Path(os.environ.get("HOSTSPEC_VM_RESULTS", _CHECKOUT / "build/kernels"))


def _row(result: Result) -> tuple[str, ...]:
    return tuple(str(each) or "–" for each in result)


def with_table(page: str, results: Iterable[Result]) -> str:
    """Return a page with these results in place of those that it has."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = [_TITLES, tuple("---" for _ in _TITLES), *map(_row, results)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


if __name__ == "__main__":
    _PAGE.write_text(with_table(_PAGE.read_text(encoding="utf-8"), _kept()), encoding="utf-8")
