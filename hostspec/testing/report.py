"""What the suite found of a driver, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

__all__ = ["Facts", "Finding", "Findings", "Outcome", "Report", "summary_lines"]


Facts = Mapping[str, object]
"""What was tested, by name: see :mod:`hostspec.testing.subject`."""


class Outcome(Enum):
    """How a test ended."""

    PASSED = "passed"
    SKIPPED = "skipped"
    """Ruled out by a capability or a probe, which is the reason."""
    GAP = "known gap"
    """Failed, as the driver's author declared."""
    FAILED = "failed"
    """A declared gap that passed is among these."""


class Finding(NamedTuple):
    """One test, with its parameters."""

    name: str
    """``test_a_deleted_file_is_gone[native-written]``."""
    area: str
    """The part of the suite that it belongs to: ``"Whiteouts"``."""
    outcome: Outcome
    """How it ended."""
    reason: str
    """Why it did not pass, or ``""``."""
    seconds: float
    """How long it took, set-up and tear-down included."""


class Findings(NamedTuple):
    """All that one class of tests found of one driver."""

    name: str
    """Name of the class."""
    facts: Facts
    """What was tested."""
    tests: Sequence[Finding]
    """In the order in which they ran."""

    def count(self, outcome: Outcome, area: str | None = None) -> int:
        """Count the tests that ended so, in one area or in all."""
        return sum(each.outcome is outcome and area in {None, each.area} for each in self.tests)

    def seconds(self, area: str | None = None) -> float:
        """Add up the time of the tests, in one area or in all."""
        return sum(each.seconds for each in self.tests if area in {None, each.area})

    def areas(self) -> list[str]:
        """Return the names of the suite's parts, sorted."""
        return sorted({each.area for each in self.tests})

    def not_passed(self, outcome: Outcome) -> Iterable[Finding]:
        """Yield the tests that ended so."""
        return (each for each in self.tests if each.outcome is outcome)

    def skips(self) -> list[tuple[str, int]]:
        """Return each reason for skipping, and how many tests it ruled out."""
        return sorted(Counter(each.reason for each in self.not_passed(Outcome.SKIPPED)).items())


class Report(NamedTuple):
    """What one run of pytest found."""

    hostspec: str
    """Version of hostspec, hence of the suite."""
    contract: int
    """Version of the contract that the suite tests."""
    made: str
    """When the run started, in UTC."""
    subjects: Sequence[Findings]
    """What was tested."""


def summary_lines(subject: Findings) -> list[str]:
    """Return a title, and the lines of a summary for people."""
    facts = subject.facts
    counts = ", ".join(f"{subject.count(each)} {each.value}" for each in Outcome)
    lines = [
        f"conformance of {facts['distribution'] or facts['driver']}, contract {facts['contract']}",
        f"{facts['filesystem']}, {facts['kernel']}, as {facts['user']}: {counts}, {subject.seconds():.0f} s",
    ]
    lines += [f"  skipped {number}: {reason}" for reason, number in subject.skips()]
    lines += [f"  known gap {each.name}: {each.reason}" for each in subject.not_passed(Outcome.GAP)]
    return lines
