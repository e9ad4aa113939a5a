from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Commands
from tests.store.tars import tar_of

BASE = {"d": None, "d/x": b"1", "y": b"22"}
TOP = {"d/x": b"12345", ".wh.y": b"", "n": b"new"}


@pytest.fixture
def hostspec(tmp_path: Path) -> Iterator[Commands]:
    """The command on a vfs store of the test's own, which is wiped in the end."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    commands = Commands(tmp_path)
    yield commands
    commands("wipe")


@pytest.fixture
def image(hostspec: Commands) -> str:
    """The name of an image of two layers, ``base`` and ``top``."""
    hostspec.good("import-layer", "-i", "base", "-r", content=tar_of(BASE))
    hostspec.good("import-layer", "-i", "top", "-r", "base", content=tar_of(TOP))
    hostspec.good("create-image", "-i", "image", "-n", "debian", "top")
    return "debian"
