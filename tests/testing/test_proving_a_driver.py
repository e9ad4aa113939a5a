"""Proving a driver from outside: by its name on the command line, and in its author's own repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.testing import DriverConformance

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "conformance.md"

ALL = re.compile(r"^\| all \| (\d+) \| (\d+) \| (\d+) \| 0 \|", re.MULTILINE)
"""The line of a report that counts what passed, was skipped, and is a known gap; nothing failed."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")

IN_THE_AUTHORS_REPOSITORY = """
import os

import pytest

from hostspec.hookspecs import hookimpl
from hostspec.testing import DriverConformance
from hostspec_minimal import MinimalDriver


class Forgetful(MinimalDriver):
    @hookimpl
    def list_layers(self):
        return []

    @hookimpl
    def exists(self, layer_id):
        return os.path.isdir(os.path.join(self._layers, layer_id))


class TestForgetful(DriverConformance):
    ways = ("native",)
    known_gaps = {
        "test_a_committed_layer_exists_and_is_listed": "lists nothing yet",
        "test_any_file_name_is_a_layer_id[native-x]": "lists nothing, not even x",
        "test_an_id_is_given_once": "was closed long ago",
    }

    @pytest.fixture
    def driver(self, driver_directory, open_driver_at):
        return open_driver_at(driver_directory, Forgetful)


class TestByName(DriverConformance):
    driver_name = "minimal"
    ways = ("native",)

    def test_the_run_has_a_mount_namespace_of_its_own(self, driver):
        assert os.readlink("/proc/self/ns/mnt") != os.environ["NAMESPACE_OF_OTHERS"]
"""
HAS_THE_SAME_OPTIONS = """
def pytest_addoption(parser):
    parser.getgroup("browsers").addoption("--driver", choices=["firefox"])
    parser.getgroup("houses").addoption("--home")
"""
"""A plugin, or a ``conftest.py``, of people who test something else."""

SOME_TESTS = "given_once or is_listed or native-x or namespace or stages or begins"


def _pytest(installed: str, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as somebody else does, away from this repository."""
    path = os.pathsep.join([installed, *filter(None, sys.path)])
    namespace = os.readlink("/proc/self/ns/mnt")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, "PYTHONPATH": path, "NAMESPACE_OF_OTHERS": namespace},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_driver_is_proved_by_its_name_alone(installed_minimal: str, tmp_path: Path) -> None:
    selected = ("-k", "native and (given_once or seen_from_its_commit_on)")
    report = tmp_path / "report.md"

    finished = _pytest(
        installed_minimal,
        tmp_path,
        *("--pyargs", "hostspec.testing", "--driver", "minimal", "--home", str(tmp_path)),
        *("--conformance-report", str(report), *selected),
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "conformance of hostspec-minimal 7.3, contract 1" in finished.stdout
    assert "1 passed, 1 skipped, 0 known gap, 0 failed" in finished.stdout
    assert "skipped 1: capability: the driver does not stage layers" in finished.stdout
    assert "| LifeCycle | 1 | 1 | 0 | 0 |" in report.read_text()
    assert os.listdir(tmp_path) == ["report.md"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say which driver to prove: pytest --pyargs hostspec.testing --driver NAME"),
        (("--driver", "nobody-wrote-this"), "no installed distribution provides it"),
        (("--driver", "minimal", "--driver-option", "colour"), "--driver-option colour: must be NAME=VALUE"),
        (("--driver", "minimal", "--driver-option", "colour=red"), "minimal.colour: is no option"),
        (("--driver", "minimal", "--conformance-report", "x.pdf"), "must end in .html, .json or .md"),
    ],
)
def test_what_cannot_be_proved_is_said_once(
    installed_minimal: str, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    finished = _pytest(installed_minimal, tmp_path, "--pyargs", "hostspec.testing", *arguments)

    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert told in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr


@pytest.mark.parametrize("place", ["browsers.py", "conftest.py"])
def test_options_of_others_that_are_called_the_same_are_theirs(
    installed_minimal: str, tmp_path: Path, place: str
) -> None:
    (tmp_path / place).write_text(HAS_THE_SAME_OPTIONS)
    (tmp_path / "test_theirs.py").write_text(
        "def test_it(pytestconfig):\n"
        "    assert pytestconfig.getoption('--driver') == 'firefox'\n"
        "    assert pytestconfig.getoption('--home') == 'brick'\n"
        "    assert pytestconfig.getoption('--graph-driver') is None\n"
    )
    plugin = ("-p", "browsers") if place == "browsers.py" else ()

    theirs = _pytest(
        f"{installed_minimal}{os.pathsep}{tmp_path}",
        tmp_path,
        *(*plugin, "--driver", "firefox", "--home=brick", "test_theirs.py"),
    )
    ours = _pytest(
        f"{installed_minimal}{os.pathsep}{tmp_path}",
        tmp_path,
        *(*plugin, "--pyargs", "hostspec.testing", "--graph-driver", "minimal"),
        *("--driver-home", str(tmp_path), "-k", "native and given_once"),
    )

    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    assert ours.returncode == 0, ours.stdout + ours.stderr
    assert "1 passed, 0 skipped" in ours.stdout


def test_a_report_of_the_fallbacks_alone_says_what_the_driver_can(
    installed_minimal: str, tmp_path: Path
) -> None:
    finished = _pytest(
        installed_minimal,
        tmp_path,
        *("--pyargs", "hostspec.testing", "--driver", "minimal", "--conformance-report", "found.json"),
        *("-k", "fallback and given_once"),
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    (subject,) = json.loads((tmp_path / "found.json").read_text())["subjects"]
    assert (subject["driver"], subject["counts"]["passed"]) == ("minimal", 1)


@as_root
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["in-one-process", "with-xdist"])
def test_known_gaps_are_strict_and_reported(
    installed_minimal: str, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "test_mine.py").write_text(IN_THE_AUTHORS_REPOSITORY)

    finished = _pytest(
        installed_minimal, tmp_path, *workers, "-k", SOME_TESTS, "--conformance-report", "found.json"
    )

    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, finished.stdout + finished.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    subjects = {subject["name"]: subject for subject in found["subjects"]}
    assert sorted(subjects) == ["TestByName", "TestForgetful"]
    outcomes = {test["name"]: test["outcome"] for test in subjects["TestForgetful"]["tests"]}
    assert outcomes["test_a_committed_layer_exists_and_is_listed[native]"] == "known gap"
    assert outcomes["test_any_file_name_is_a_layer_id[native-x]"] == "known gap"
    # It passes, so that it is no gap any more, and the run must say so.
    assert outcomes["test_an_id_is_given_once[native]"] == "failed"
    assert subjects["TestByName"]["counts"]["failed"] == 0, finished.stdout
    assert subjects["TestByName"]["capabilities"]["mounts_privately"] is False


def test_a_report_is_one_page_that_needs_nothing_else(installed_minimal: str, tmp_path: Path) -> None:
    finished = _pytest(
        installed_minimal,
        tmp_path,
        *("--pyargs", "hostspec.testing", "--driver", "minimal", "--conformance-report", "found.html"),
        *("-k", "native and given_once"),
    )

    page = (tmp_path / "found.html").read_text()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert page.startswith("<!doctype html>")
    assert "hostspec-minimal 7.3" in page
    assert "<code>test_an_id_is_given_once[native]</code>" in page
    assert "http" not in page


@as_root
def test_a_report_begins_with_what_failed_and_why(installed_minimal: str, tmp_path: Path) -> None:
    code = IN_THE_AUTHORS_REPOSITORY.replace(
        '"test_a_committed_layer_exists_and_is_listed": "lists nothing yet",', ""
    )
    (tmp_path / "test_mine.py").write_text(code)

    _pytest(
        installed_minimal, tmp_path, "-k", "Forgetful and is_listed", "--conformance-report", "found.html"
    )

    page = (tmp_path / "found.html").read_text()
    assert '<p class="verdict">1 failed</p>' in page
    assert "AssertionError: assert [] == [&#x27;one&#x27;, &#x27;two&#x27;]" in page
    assert page.index("<th>because</th>") < page.index("<th>fact</th>")


def test_a_gap_that_names_no_test_is_refused() -> None:
    with pytest.raises(TypeError, match="the suite has no test 'test_that_is_misspelt'"):
        type("TestMine", (DriverConformance,), {"known_gaps": {"test_that_is_misspelt": "a reason"}})


def test_the_reports_in_the_documentation_are_of_the_suite_as_it_is(
    installed_minimal: str, tmp_path: Path
) -> None:
    arguments = ("--pyargs", "hostspec.testing", "--driver", "minimal", "--collect-only")
    listed = _pytest(installed_minimal, tmp_path, *arguments).stdout
    (tests,) = re.findall(r"^(\d+) tests collected", listed, re.MULTILINE)
    reports = DOCUMENTATION.read_text(encoding="utf-8").split("\n### ")[1:]

    drivers = [report.partition(" on ")[0] for report in reports]
    outcomes = [ALL.findall(report) for report in reports]

    assert drivers == ["overlay", "btrfs", "vfs", "erofs", "loopimage"]
    # Where they are not, make them again: --conformance-report FILE.md, for each driver on its file system.
    assert [sum(map(int, *each)) for each in outcomes] == [int(tests)] * len(reports)
