"""What people install: each distribution has its modules, its data and its licence, and no more."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {
    "hostspec": ROOT,
    **{f"hostspec_{driver}": ROOT / "plugins" / driver for driver in ("overlay", "btrfs", "vfs")},
}


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A distribution's name, and the directory with its wheel and its source archive."""
    place = tmp_path_factory.mktemp("dist")
    # As pip does it, but without an environment of its own, for which something would be downloaded.
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(place)]
    done = subprocess.run(
        command, cwd=DISTRIBUTIONS[request.param], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return request.param, place


def test_a_wheel_holds_the_package_and_its_licence_alone(built: tuple[str, Path]) -> None:
    name, place = built
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    about = {each for each in names if PurePosixPath(each).parts[0].endswith(".dist-info")}
    assert any(each.endswith("/licenses/LICENSE") for each in about)
    assert names - about == _files_of(DISTRIBUTIONS[name], name)
    assert f"{name}/py.typed" in names


def test_a_source_archive_holds_what_the_wheel_is_made_of(built: tuple[str, Path]) -> None:
    name, place = built
    (source,) = place.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {each.partition("/")[2] for each in archive.getnames()}

    beside = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names - {"CHANGELOG.md"} == _files_of(DISTRIBUTIONS[name], name) | beside


def _files_of(directory: Path, package: str) -> set[str]:
    """Return the paths of a package's files, whatever they are, but for what tools leave between them."""
    found = (path.relative_to(directory) for path in (directory / package).rglob("*") if path.is_file())
    return {
        str(path) for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }
