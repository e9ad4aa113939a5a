"""The minimal driver, installed as a distribution of its own; the table of faults, at the end of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "minimal_driver"


@pytest.fixture(scope="session")
def installed_minimal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a directory into which pip installed the minimal driver, as it installs anybody's."""
    target = tmp_path_factory.mktemp("site-packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Without a build environment of its own nothing is downloaded.
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(SOURCE)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return str(target)


@pytest.fixture
def minimal_on_path(installed_minimal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the installed distribution visible to this process, for one test."""
    monkeypatch.syspath_prepend(installed_minimal)


_mutants = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with an empty table."""
    config.stash[_mutants] = {}
    config.pluginmanager.register(_Table(config.stash[_mutants]))


class _Table:
    """Which test of the suite caught which faulty driver, also where a worker of xdist ran them."""

    def __init__(self, caught: dict[str, str]) -> None:
        self._caught = caught

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a table's lines from the report of the test that ran the faulty drivers."""
        if report.when == "call":
            self._caught.update(value for name, value in report.user_properties if name == "hostspec-mutant")  # type: ignore[misc]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, if those drivers were run."""
        if self._caught:
            terminalreporter.section(f"{len(self._caught)} faulty drivers, and the test that caught each")
            width = max(map(len, self._caught))
            for faulty, test in self._caught.items():
                terminalreporter.line(f"{faulty:{width}}  {test}")
