"""Somebody else's driver, which has only the required hooks: installed, found by name, and conformant."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hostspec.driver import GraphDriver
from hostspec.hookspecs import REQUIRED_HOOKS
from hostspec.plugins import installed_drivers
from hostspec.testing import DriverConformance, DriverOpener
from hostspec.testing.opening import FALLBACK_HOOKS

COMMAND = "import sys; from hostspec.cli.main import main; sys.exit(main())"


class TestMinimalDriver(DriverConformance):
    """On ext4; everything optional is done by the fallbacks."""

    ways = ("native",)  # nothing is left to mask

    @pytest.fixture
    def driver(
        self,
        open_driver_at: DriverOpener,
        ext4_directory: str,
        minimal_on_path: None,  # noqa: ARG002
    ) -> GraphDriver:
        return open_driver_at(ext4_directory, "minimal")


class TestMinimalDriverWithReflinks(TestMinimalDriver):
    """On XFS, where the fallback copies by reflink."""

    @pytest.fixture
    def driver(
        self,
        open_driver_at: DriverOpener,
        xfs_directory: str,
        minimal_on_path: None,  # noqa: ARG002
    ) -> GraphDriver:
        return open_driver_at(xfs_directory, "minimal")


@pytest.mark.usefixtures("minimal_on_path")
def test_the_minimal_driver_is_found_with_its_distribution() -> None:
    found = [each for each in installed_drivers() if each.name == "minimal"]

    assert [(each.distribution, each.version) for each in found] == [("hostspec-minimal", "7.3")]


@pytest.mark.usefixtures("minimal_on_path")
def test_the_minimal_driver_has_only_the_required_hooks(tmp_path: os.PathLike[str]) -> None:
    driver = DriverOpener(frozenset())(os.fspath(tmp_path), "minimal")

    assert all(driver.implements(hook) for hook in REQUIRED_HOOKS)
    assert not any(driver.implements(hook) for hook in FALLBACK_HOOKS)


def test_the_minimal_driver_is_listed_on_the_command_line(installed_minimal: str) -> None:
    listed = json.loads(_hostspec(installed_minimal, "drivers", "--json"))

    assert "minimal" in json.dumps(listed)


def test_the_minimal_driver_is_opened_by_name_from_the_command_line(
    installed_minimal: str, tmp_path: os.PathLike[str]
) -> None:
    place = os.fspath(tmp_path)
    store = ("--graph", f"{place}/root", "--run", f"{place}/run", "--storage-driver", "minimal")
    os.makedirs(f"{place}/rootfs/etc")
    with open(f"{place}/rootfs/etc/hostname", "w", encoding="ascii") as opened:
        opened.write("third-party\n")

    _hostspec(installed_minimal, *store, "import", "--name", "localhost/tiny", f"{place}/rootfs")

    assert "localhost/tiny" in _hostspec(installed_minimal, *store, "images")
    assert os.listdir(f"{place}/root/minimal/layers") != []


def _hostspec(installed: str, *arguments: str) -> str:
    """Run the command line in a process that sees the installed driver, and return its output."""
    path = os.pathsep.join([installed, *filter(None, sys.path)])
    finished = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
