from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 100
"""For each of two drivers."""


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_eight_processes_of_which_some_are_killed_lose_nothing_and_leave_nothing(
    ext4_directory: str, driver: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    words = [f"{ext4_directory}/graph", f"{ext4_directory}/run", driver, str(ROUNDS), "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.crowd", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
