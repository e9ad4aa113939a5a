"""What becomes of a mapped copy whose making is interrupted half-way: nothing, and the template stays."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points
from hostspec.store import Store, open_store
from hostspec.values import Progress
from tests.store.invariants import faults_of, ids_in
from tests.store.tars import MAP, tar_of

MAPPED = IdMap.parse([MAP])
# More than are made between two reports, so that the first comes in the middle.
FILES = {f"file-{number}": b"content of %d" % number for number in range(700)}

KILLED_HALF_WAY = """
import os, signal, sys
from hostspec.idmap import IdMap
from hostspec.store import open_store

root, run_root, driver, idmap, *options = sys.argv[1:]
store = open_store(root=root, run_root=run_root, driver=driver, options=options)

def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)

store.create_container("image", names=["new"], idmap=IdMap.parse([idmap]), strategy="template", progress=die)
"""


class Place(NamedTuple):
    """Where a store lies, and how it is opened."""

    directory: Path
    driver: str
    options: tuple[str, ...]

    def open(self) -> Store:
        return open_store(
            root=str(self.directory / "graph"),
            run_root=str(self.directory / "run"),
            driver=self.driver,
            options=self.options,
        )


@pytest.fixture(
    params=[
        ("overlay", "ext4", ""),
        ("overlay", "ext4", "overlay.mountopt=metacopy=on"),
        ("overlay", "xfs", "overlay.hostspec_direct_pass=off"),
        ("btrfs", "btrfs", ""),
        ("vfs", "ext4", ""),
    ],
    ids=["overlay", "overlay-stubs", "overlay-by-mount", "btrfs", "vfs"],
)
def place(request: pytest.FixtureRequest) -> Place:
    """A store with an image, on each file system that a driver's passes differ on."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    driver, filesystem, option = request.param
    directory = request.getfixturevalue(f"{filesystem}_directory")
    found = Place(Path(directory), driver, (option,) if option else ())
    with found.open() as store:
        base = store.import_layer(io.BytesIO(tar_of({"etc": None, **FILES}, uid=10, gid=20)))
        top = store.import_layer(io.BytesIO(tar_of({"etc/name": b"top"})), base.id)
        store.create_image(top.id, names=["image"])
    return found


def inodes_of(store: Store, layer_id: str) -> dict[str, tuple[int, ...]]:
    """Return the owner of each file of a layer, and when it was changed last in whatever way."""
    found: dict[str, tuple[int, ...]] = {}
    with store.driver.mounted(layer_id) as root:
        for directory, names, files in os.walk(root):
            for name in [*names, *files]:
                inode = os.lstat(f"{directory}/{name}")
                path = os.path.relpath(f"{directory}/{name}", root)
                found[path] = (inode.st_uid, inode.st_gid, inode.st_mode, inode.st_size, inode.st_ctime_ns)
    return found


def kill_half_way(place: Place, store: Store) -> None:
    words = [store.root, store.run_root, place.driver, MAP, *place.options]
    done = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, *words], check=False)
    assert done.returncode == -signal.SIGKILL


class Interruption(Exception):
    """What the caller's progress callback raises."""


def give_up_half_way(place: Place, store: Store) -> None:
    del place

    def interrupt(progress: Progress) -> None:
        raise Interruption(progress)

    with pytest.raises(Interruption):
        store.create_container("image", names=["new"], idmap=MAPPED, strategy="template", progress=interrupt)


@pytest.mark.parametrize("interrupt", [kill_half_way, give_up_half_way], ids=["killed", "given up"])
def test_an_interrupted_pass_leaves_nothing_recorded_and_is_done_again_from_the_untouched_template(
    place: Place, interrupt: Callable[[Place, Store], None]
) -> None:
    with place.open() as store:
        before = ids_in(store)
        template = store.image("image").layer
        assert template is not None
        inodes = inodes_of(store, template)

        interrupt(place, store)

        assert ids_in(store) == before
        assert store.image("image").mapped_layers == ()
        assert store.mapped_copies() == []
    with place.open() as store:
        assert sorted(store.driver.list_layers()) == sorted(each.id for each in store.layers())
        assert faults_of(store) == []
        assert mount_points(str(place.directory / "graph")) == []
        assert mount_points(str(place.directory / "run")) == []
        assert inodes_of(store, template) == inodes

        store.create_container("image", names=["new"], idmap=MAPPED, strategy="template")

        (copy,) = store.mapped_copies()
        mapped = {
            path: (*MAPPED.to_host(uid, gid), *rest[:2])
            for path, (uid, gid, *rest) in inodes_of(store, template).items()
        }
        assert {path: found[:4] for path, found in inodes_of(store, copy.layer.id).items()} == mapped
        assert inodes_of(store, template) == inodes
