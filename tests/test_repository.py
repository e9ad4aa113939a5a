"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import hostspec

ROOT = Path(__file__).parent.parent
DRIVERS = ("btrfs", "overlay", "vfs")
DISTRIBUTIONS = ("hostspec", *(f"hostspec-{driver}" for driver in DRIVERS))
PROJECT_FILES = (ROOT / "pyproject.toml", *(ROOT / f"plugins/{driver}/pyproject.toml" for driver in DRIVERS))

AT_THE_TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "docs",
    "hostspec",
    "plugins",
    "pyproject.toml",
    "tests",
}
IN_HOSTSPEC = {
    "archive",
    "cli",
    "driver.py",
    "errors.py",
    "fallback.py",
    "hookspecs.py",
    "idmap.py",
    "images",
    "kernel",
    "ownership.py",
    "plugins.py",
    "store",
    "testing",
    "values.py",
}

# Written apart, so that this file does not name what it forbids.
FORBIDDEN = {
    "an issue's number": re.compile(r"""(?<![\w&"':])#\d+\b(?!\s*[;{}])"""),  # and no colour
    "a path of one machine": re.compile(r"""(?:^|[\s"'`(=:])/""" + "work/"),
    "a path outside the repository": re.compile(r"\.\./" + "shared"),
    "a package index": re.compile(
        "pypi" + r"\.org|python" + r"hosted|index[-_]" + r"url|find[-_]" + r"links|deb\.debian" + r"\.org"
    ),
}


def tracked_files() -> list[Path]:
    """Return the files of the repository: what git tracks, or would if it were added."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    names = [os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def project(path: Path) -> dict[str, Any]:
    """Return the ``[project]`` table of a project file."""
    table: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return table


def public_modules() -> list[Path]:
    """Return the source file of each module that a user can import."""
    packages = ("hostspec", *(f"plugins/{driver}/hostspec_{driver}" for driver in DRIVERS))
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    """Return the dotted name under which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "plugins":
        parts = parts[2:]
    return ".".join(parts).removesuffix(".__init__")


def shown(path: Path) -> str:
    """Name a test's file by its place in the repository."""
    return str(path.relative_to(ROOT))


def test_the_four_distributions_have_one_version() -> None:
    versions = {shown(path): project(path)["version"] for path in PROJECT_FILES}

    assert set(versions.values()) == {hostspec.__version__}, versions


def test_every_driver_depends_on_this_hostspec() -> None:
    series = hostspec.__version__.rpartition(".")[0]

    for path in PROJECT_FILES[1:]:
        assert project(path)["dependencies"][0] == f"hostspec~={series}.0", shown(path)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_what_is_installed_is_this_version(distribution: str) -> None:
    assert metadata.version(distribution) == hostspec.__version__


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_is_found_by_its_entry_point(driver: str) -> None:
    (found,) = metadata.entry_points(group="hostspec.drivers", name=driver)

    assert found.value == f"hostspec_{driver}:open_driver"
    assert callable(found.load())


def test_the_top_of_the_tree_is_as_designed() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}

    assert top == AT_THE_TOP


def test_every_designed_part_of_hostspec_is_there() -> None:
    assert {path.name for path in (ROOT / "hostspec").iterdir()} >= IN_HOSTSPEC


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_has_the_same_shape(driver: str) -> None:
    names = {
        path.relative_to(ROOT / "plugins" / driver).parts[0]
        for path in tracked_files()
        if path.is_relative_to(ROOT / "plugins" / driver)
    }

    assert names == {"LICENSE", "README.md", f"hostspec_{driver}", "pyproject.toml", "tests"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_carries_the_licence(driver: str) -> None:
    assert (ROOT / "plugins" / driver / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "package", ["hostspec", *(f"plugins/{driver}/hostspec_{driver}" for driver in DRIVERS)]
)
def test_every_distribution_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names_what_only_its_writers_know(what: str) -> None:
    named = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.name != "LICENSE"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]

    assert not named, "\n".join(named)


@pytest.mark.parametrize("path", public_modules(), ids=shown)
def test_every_module_begins_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_bytes()))


@pytest.mark.parametrize("path", public_modules(), ids=shown)
def test_every_public_name_exists(path: Path) -> None:
    if path.name == "__main__.py":
        pytest.skip("importing it would run it")
    module = importlib.import_module(module_name(path))

    missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert not missing


def test_importing_hostspec_imports_nothing_else_of_it() -> None:
    listing = subprocess.run(
        [
            sys.executable,
            "-c",
            "import hostspec, sys; print(*(n for n in sys.modules if n.startswith('hostspec')))",
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )

    assert listing.stdout.split() == ["hostspec"]
