"""An ordinary user has a store of their own, and works on it in a user namespace."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ordinary_user import FIRST_SUBORDINATE, NOBODY, SUBORDINATE, run_as_nobody
from tests.store.tars import tar_of

HOSTSPEC = ("-c", "import sys; from hostspec.cli.main import main; sys.exit(main())")
SCRIPT = """
import sys
from hostspec.idmap import IdMap
from hostspec.store import open_store

with open_store() as store:
    print(store.root, store.run_root, store.driver_name)
    layer = store.import_layer(sys.argv[1])
    image = store.create_image(layer.id, names=["localhost/mine:latest"])
    container = store.create_container("mine", names=["c"], idmap=IdMap([(0, 1, 1000)], [(0, 1, 1000)]))
    with store.mounting("c") as root, open(f"{root}/etc/name") as file:
        print(file.read())
    store.delete_container("c")
    store.delete_image("mine")
    print(len(store.layers()))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for an ordinary user, below directories that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    with tempfile.TemporaryDirectory(prefix="hostspec-", dir="/var/tmp") as directory:
        os.chown(directory, NOBODY, NOBODY)
        yield Path(directory)


def _hostspec(python: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    run = home / "run"
    run.mkdir(exist_ok=True)
    os.chown(run, NOBODY, NOBODY)
    return run_as_nobody(python, *HOSTSPEC, *words, directory=home, HOME=str(home), XDG_RUNTIME_DIR=str(run))


@pytest.mark.usefixtures("subordinate_ids")
def test_an_ordinary_user_imports_and_mounts_in_the_store_of_their_own(home: Path, python: str) -> None:
    tar = home / "base.tar"
    tar.write_bytes(tar_of({"etc": None, "etc/name": b"mine"}, uid=7, gid=8))

    done = _hostspec(python, home, "unshare", python, "-c", SCRIPT, str(tar))

    assert done.returncode == 0, done.stderr
    place, content, left = done.stdout.splitlines()
    root, run_root, _ = place.split()
    assert (root, run_root) == (f"{home}/.local/share/containers/storage", f"{home}/run/containers")
    assert (content, left) == ("mine", "0")
    # Outside, the user themselves or one of their subordinate IDs owns every file.
    owners = {os.lstat(path).st_uid for path in Path(root).rglob("*")}
    assert owners <= {NOBODY, *range(FIRST_SUBORDINATE, FIRST_SUBORDINATE + SUBORDINATE)}


def test_without_a_namespace_the_same_store_is_looked_at(home: Path, python: str) -> None:
    configured, listed = (_hostspec(python, home, command) for command in ("config", "images"))

    assert configured.returncode == listed.returncode == 0, configured.stderr + listed.stderr
    assert f'"root":"{home}/.local/share/containers/storage"' in configured.stdout


def test_an_ordinary_user_is_told_how_files_get_their_owners(home: Path, python: str) -> None:
    tar = home / "base.tar"
    tar.write_bytes(tar_of({"name": b"mine"}, uid=7, gid=8))
    flags = ("-s", "vfs", "-g", str(home / "graph"), "-R", str(home / "run"))

    done = _hostspec(python, home, "import-layer", *flags, "-f", str(tar))

    assert done.returncode == 1
    assert "by hostspec unshare, or with the option vfs.ignore_chown_errors=true" in done.stderr
    squashed = ("--storage-opt", "vfs.ignore_chown_errors=true")
    assert _hostspec(python, home, "import-layer", *flags, *squashed, "-f", str(tar)).returncode == 0
