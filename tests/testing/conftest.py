"""The minimal driver, installed as a distribution of its own."""

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
