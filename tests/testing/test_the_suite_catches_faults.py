"""The conformance suite is worth something: it fails drivers that are wrong, and says in what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec.testing import DriverConformance
from tests.testing import mutants
from tests.testing.mutants import FAULTS, SOUND

ROOT = Path(__file__).parents[2]
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) .*::Test(\w+)::(\w+)", re.MULTILINE)
DOCUMENTATION = ROOT / "docs" / "conformance.md"
TABLE = re.compile(r"^\| `(\w+)` \| `(\w+)` \|$", re.MULTILINE)

Outcomes = dict[tuple[str, str], set[str]]


# One test, since the workers of xdist would each run all faults for a part of the tests.
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to several users, which only root may")
def test_each_fault_is_caught_by_the_test_named_after_it(
    record_property: Callable[[str, object], None],
) -> None:
    outcomes = _run([*FAULTS.items(), *((_sound_one(faulty), test) for faulty, test in FAULTS.items())])

    for faulty, test in FAULTS.items():
        caught = outcomes[faulty.__name__, test] in ({"FAILED"}, {"FAILED", "PASSED"})
        record_property("hostspec-mutant", [faulty.__name__, test if caught else "NOT CAUGHT"])
    missed = {
        faulty.__name__ for faulty, test in FAULTS.items() if "FAILED" not in outcomes[faulty.__name__, test]
    }
    broken = {driver for (driver, _), found in outcomes.items() if "ERROR" in found}
    too_strict = {
        (driver.__name__, test)
        for driver in SOUND
        for test in FAULTS.values()
        if outcomes.get((driver.__name__, test), {"PASSED"}) != {"PASSED"}
    }
    assert (missed, broken, too_strict) == (set(), set(), set())


def test_the_documentation_has_the_table_of_faults() -> None:
    _, _, section = DOCUMENTATION.read_text(encoding="utf-8").partition("| faulty driver |")

    documented = TABLE.findall(section.partition("## ")[0])

    assert documented == [(faulty.__name__, test) for faulty, test in FAULTS.items()]


def test_the_tests_that_the_documentation_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)", DOCUMENTATION.read_text(encoding="utf-8")))

    assert len(named) > len(FAULTS) // 2
    assert {each for each in named if not hasattr(DriverConformance, each)} == set()


def _sound_one(faulty: type) -> type:
    return next(each for each in SOUND if issubclass(faulty, each))


def _run(wanted: list[tuple[type, str]]) -> Outcomes:
    """Run each driver's test in one run of pytest, up to each driver's first failure."""
    nodes = sorted({f"{mutants.__file__}::Test{driver.__name__}::{test}" for driver, test in wanted})
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rpfE", "-p", "no:cacheprovider"]
    command += ["-p", "tests.testing.first_failure", *nodes]
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    found: Outcomes = defaultdict(set)
    for outcome, driver, test in OUTCOME.findall(finished.stdout):
        found[driver, test].add(outcome)
    assert found.keys() >= {(driver.__name__, test) for driver, test in wanted}, (
        finished.stdout + finished.stderr
    )
    return dict(found)
