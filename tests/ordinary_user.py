"""An ordinary user, whom root becomes for a test, with subordinate IDs or without."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.kernel.mounts import bind, unmount
from hostspec.testing.requirements import require_or_skip

NOBODY = 65_534
FIRST_SUBORDINATE, SUBORDINATE = 700_000, 65_536
TREE = Path(__file__).parents[1]


@pytest.fixture
def python() -> Iterator[str]:
    """This Python where everybody may run it, wherever it is installed."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    with tempfile.TemporaryDirectory(prefix="hostspec-python-") as place:
        os.chmod(place, 0o755)
        bind(sys.base_prefix, place)
        try:
            yield f"{place}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        finally:
            unmount(place)


@pytest.fixture
def subordinate_ids(tmp_path: Path) -> Iterator[None]:
    """Give that user subordinate IDs, for this test alone: the run has a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root may put other files in the place of these")
    for program in ("newuidmap", "newgidmap"):
        if shutil.which(program) is None:
            require_or_skip(program, "is not installed; Debian's package is uidmap")
    granted = tmp_path / "granted"
    granted.write_text(f"{pwd.getpwuid(NOBODY).pw_name}:{FIRST_SUBORDINATE}:{SUBORDINATE}\n")
    files = ("/etc/subuid", "/etc/subgid")
    for each in files:
        bind(str(granted), each)
    yield
    for each in files:
        unmount(each)


def run_as_nobody(
    python: str, *words: str, directory: Path = TREE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python as that user; the test ends where they may not read the modules under test.

    Args:
        python: The fixture of that name.
        words: Python's arguments.
        directory: The directory in which to run.
        environment: Variables beside those by which modules and programs are found.
    """
    modules = [each.replace(sys.base_prefix, str(Path(python).parents[1])) for each in sys.path if each]
    done = subprocess.run(
        [python, *words],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(TREE), *modules]),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr:
        require_or_skip("readable-modules", "hostspec lies where other users may not read it")
    return done
