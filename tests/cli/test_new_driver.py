"""``hostspec new-driver``: a distribution that installs, and fails only where somebody must write code."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hostspec.cli.main import main
from hostspec.hookspecs import REQUIRED_HOOKS

WRITTEN = Path(__file__).parents[2] / "docs" / "drivers" / "plain.py"
"""The driver of the guide, which is this skeleton filled in."""


@pytest.fixture
def distribution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A distribution for a driver ``plain``, as it was generated."""
    directory = tmp_path / "plain"
    assert main(["new-driver", "plain", str(directory)]) == 0
    assert capsys.readouterr().out == f"{directory}\n"
    return directory


def run_suite(distribution: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Install the distribution beside what is installed, and run its own tests as its author would."""
    site = distribution.parent / "site"
    shutil.rmtree(site, ignore_errors=True)
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    subprocess.run((*install, "--target", site, distribution), check=True)
    return subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *words),
        cwd=distribution,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_skeleton_has_every_required_hook_with_its_contract(distribution: Path) -> None:
    tree = ast.parse((distribution / "hostspec_plain" / "driver.py").read_text())
    (driver,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    hooks = {
        each.name: ast.get_docstring(each)
        for each in driver.body
        if isinstance(each, ast.FunctionDef) and each.decorator_list
    }
    assert set(hooks) == REQUIRED_HOOKS
    assert all(hooks.values())


def test_the_skeleton_names_its_entry_point_and_what_it_needs(distribution: Path) -> None:
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    assert project["name"] == "hostspec-plain"
    assert project["entry-points"] == {"hostspec.drivers": {"plain": "hostspec_plain:open_driver"}}
    assert [each.split("~")[0] for each in project["dependencies"]] == ["hostspec"]


def test_nothing_is_left_of_the_templates(distribution: Path) -> None:
    texts = {path: path.read_text() for path in distribution.rglob("*") if path.is_file()}
    assert len(texts) == 8
    assert not [path for path, text in texts.items() if "$" in text.replace('"$(which python)"', "")]


@pytest.mark.parametrize("name", ["Plain", "9p", "a--b", "a/b", ""])
def test_a_name_that_cannot_be_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["new-driver", name, str(tmp_path / "new")]) == 1
    assert "is no name for a driver" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_name_of_an_installed_driver_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-driver", "vfs", str(tmp_path / "new")]) == 1
    assert "the distribution hostspec-vfs is installed" in capsys.readouterr().err


def test_a_directory_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["new-driver", "plain", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the driver mounts, which only root can")
def test_its_suite_fails_only_where_code_must_be_written_and_passes_when_it_is(distribution: Path) -> None:
    before = run_suite(distribution, "-k", "native", "--maxfail=60")
    errors = [line for line in before.stdout.splitlines() if re.match(r"E  |/.*: \w+", line)]
    assert before.returncode == 1, before.stdout + before.stderr
    assert errors
    assert [line for line in errors if "NotImplementedError: plain: " not in line] == []

    shutil.copy(WRITTEN, distribution / "hostspec_plain" / "driver.py")
    after = run_suite(distribution, "-k", "native")
    assert after.returncode == 0, after.stdout + after.stderr
    assert " passed" in after.stdout
