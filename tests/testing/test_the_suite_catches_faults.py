"""The conformance suite is worth something: it fails drivers that are wrong, and says in what."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.testing import faulty_drivers
from tests.testing.faulty_drivers import FAULTS, SoundDriver
from tests.testing.minimal_driver.hostspec_minimal import MinimalDriver

ROOT = Path(__file__).parents[2]
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) .*::Test(\w+)::(\w+)", re.MULTILINE)

every_fault = pytest.mark.parametrize(
    ("faulty", "test"), [pytest.param(*fault, id=fault[0].__name__) for fault in FAULTS.items()]
)

Outcomes = dict[tuple[str, str], set[str]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Run every fault's test, on the faulty driver and on the sound one, in one run of pytest."""
    wanted = sorted(
        {(driver.__name__, test) for faulty, test in FAULTS.items() for driver in (faulty, SoundDriver)}
    )
    nodes = [f"{faulty_drivers.__file__}::Test{driver}::{test}" for driver, test in wanted]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rpfE", "-p", "no:cacheprovider", *nodes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    found: Outcomes = defaultdict(set)
    for outcome, driver, test in OUTCOME.findall(finished.stdout):
        found[driver, test].add(outcome)
    assert found.keys() == set(wanted), finished.stdout + finished.stderr
    return found


@every_fault
def test_a_fault_is_caught_by_the_test_named_after_it(
    outcomes: Outcomes, faulty: type[MinimalDriver], test: str
) -> None:
    assert "FAILED" in outcomes[faulty.__name__, test]
    assert "ERROR" not in outcomes[faulty.__name__, test]


@every_fault
def test_the_same_test_passes_a_sound_driver(
    outcomes: Outcomes, faulty: type[MinimalDriver], test: str
) -> None:
    assert outcomes[SoundDriver.__name__, test] == {"PASSED"}, faulty.__doc__
