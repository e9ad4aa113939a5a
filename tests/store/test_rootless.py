"""Mapped containers of an ordinary user, with the IDs that the user is granted, and without any."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.ordinary_user import NOBODY, run_as_nobody
from tests.scratch_filesystems import directory_for

DRIVERS = ["vfs", "overlay", "btrfs"]


def rootless(
    request: pytest.FixtureRequest, python: str, driver: str, ids: str
) -> tuple[dict[str, list[object]], str]:
    """Return what such a user found, and what was said meanwhile."""
    parent = directory_for(driver, request)
    directory = Path(tempfile.mkdtemp(dir=parent))
    os.chown(directory, NOBODY, NOBODY)
    done = run_as_nobody(python, "-m", "tests.store.rootless", str(directory), driver, ids)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.usefixtures("subordinate_ids")
@pytest.mark.parametrize("driver", DRIVERS)
def test_files_get_the_ids_that_the_user_is_granted(
    request: pytest.FixtureRequest, python: str, driver: str
) -> None:
    found, said = rootless(request, python, driver, "granted")
    exact = [11, 21, False]
    assert "only the machine's root may set up ID maps" in str(found["against shifting"])
    assert "Errno" not in str(found.pop("against shifting"))
    assert found == {"auto": exact, "template": exact, "copy": exact, "left": []}
    assert said == ""


@pytest.mark.parametrize("driver", DRIVERS)
def test_without_any_all_files_get_the_one_id_and_it_is_said(
    request: pytest.FixtureRequest, python: str, driver: str
) -> None:
    found, said = rootless(request, python, driver, "single")
    squashed = [0, 0, True]
    assert "only the machine's root may set up ID maps" in str(found.pop("against shifting"))
    assert found == {"auto": squashed, "template": squashed, "copy": squashed, "left": []}
    first, *others = said.splitlines()
    assert first.startswith("layer ")
    told = "owners outside the ID map 0:0:1 are squashed to the nearest in it: UIDs 10; GIDs 20"
    assert first.endswith(told)
    assert others == [f"image image: {told}"] * 3
