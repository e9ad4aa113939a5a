"""What small commands may load: importing modules is most of what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.running import Commands

TELLING = """
import sys
from hostspec.cli.main import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""

COMPILING = """
import sys
from typing import ForwardRef
from hostspec.cli.main import main
code = main(sys.argv[1:])
ours = [vars(module) for name, module in sys.modules.items() if name.startswith("hostspec")]
for each in (found for names in ours for found in names.values() if hasattr(found, "_fields")):
    if any(isinstance(hint, ForwardRef) for hint in each.__annotations__.values()):
        print(each, file=sys.stderr)
sys.exit(code)
"""

HEAVY = {
    *("argparse", "asyncio", "bz2", "dataclasses", "email", "fastcrc", "hashlib", "importlib.metadata"),
    *("isal", "logging", "lzma", "opentelemetry", "pathlib", "pybase64", "pyroute2", "random", "shutil"),
    *("socket", "subprocess", "tarfile", "tempfile", "tomllib", "traceback", "urllib", "xattr", "zstandard"),
    *("hostspec.archive", "hostspec.images", "hostspec.run", "hostspec.store.configuration.default_store"),
    *("hostspec.ownership", "hostspec.testing"),
}
"""What no small command needs, each with all that lies in it."""

DRIVER = {"ctypes", "inspect", "pluggy", "hostspec.driver", "hostspec.plugins", "hostspec.values"}
"""What comes with the first use of a driver."""

# Modules of hostspec and of its driver: those of today, and some room. Whoever needs more looks first
# whether the plain case does.
LISTING, CHANGING, MAKING = 49, 86, 99


class Loading:
    """Runs commands on one store, and tells which modules a process has loaded in the end."""

    def __init__(self, directory: Path, driver: str) -> None:
        self.run = Commands(directory, driver=driver)
        self._telling = Commands(directory, driver=driver, program=(sys.executable, "-c", TELLING))
        self._compiling = Commands(directory, driver=driver, program=(sys.executable, "-c", COMPILING))
        self._bare = set(_output(sys.executable, "-c", "import sys; print(*sys.modules)").split())

    def __call__(self, *words: str) -> frozenset[str]:
        done = self._telling(*words)
        assert done.code == 0, done.err
        return frozenset(done.err.split()) - self._bare

    def compiled(self, *words: str) -> str:
        """Name the named tuples whose annotations Python has compiled; the first one takes it 0.7 ms."""
        return self._compiling(*words).err


@pytest.fixture(params=["overlay", "btrfs", "vfs"])
def loading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loading]:
    """A store of each driver, with an image."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    directory = Path(request.getfixturevalue("btrfs_directory")) if request.param == "btrfs" else tmp_path
    loading = Loading(directory, request.param)
    loading.run.good("create-layer", "-i", "top", "-r")
    loading.run.good("create-image", "-n", "image", "top")
    yield loading
    loading.run("wipe")


def test_helping_loads_no_store() -> None:
    modules = _output(sys.executable, "-c", TELLING.replace("stderr", "stdout"), "--help").split()

    assert [each for each in modules if each.startswith("hostspec.store")] == []
    assert _within(modules, HEAVY | DRIVER) == set()


def test_listing_loads_no_driver(loading: Loading) -> None:
    for command in ("layers", "images", "containers"):
        modules = loading(command)

        assert _within(modules, HEAVY | DRIVER) == set()
        assert _ours(modules) <= LISTING


def test_listing_compiles_no_annotations(loading: Loading) -> None:
    assert loading.compiled("layers") == ""
    assert "hostspec" in loading.compiled("create-layer")  # as drivers do, which need the compiler anyway


def test_making_a_layer_loads_little(loading: Loading) -> None:
    modules = loading("create-layer")

    assert _within(modules, HEAVY) == set()
    assert _ours(modules) <= CHANGING


@pytest.mark.parametrize("flags", [(), ("--uidmap", "0:100000:65536")], ids=["plain", "mapped"])
def test_the_life_of_a_container_loads_little(loading: Loading, flags: Sequence[str]) -> None:
    made = loading("create-container", "-n", "one", *flags, "image")
    later = [loading(command, "one") for command in ("mount", "unmount", "delete-container")]

    assert [_within(modules, HEAVY) for modules in (made, *later)] == [set()] * 4
    assert _ours(made) <= MAKING
    assert max(map(_ours, later)) <= CHANGING


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _within(modules: Sequence[str] | frozenset[str], packages: set[str]) -> set[str]:
    return {each for each in modules for package in packages if f"{each}.".startswith(f"{package}.")}


def _ours(modules: frozenset[str]) -> int:
    return sum(1 for each in modules if each.startswith("hostspec"))
