"""Stores whose layers a program mounts, shared with the Go library, which is given the same option."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.images.importing import import_image
from hostspec.kernel.mountinfo import mount_points, mount_table
from hostspec.kernel.self_binds import unbind_from_itself
from hostspec.store import Image, Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.peers.busybox import GREETING, GREETING_OWNER
from tests.peers.clients import Place, require_program
from tests.store.tars import tar_of

NAME = "localhost/greeter:latest"
MAP = "0:100000:65536"
PROGRAM = "/usr/bin/fuse-overlayfs"
OPTION = f"overlay.mount_program={PROGRAM}"
_PATIENCE_SECONDS = 60

DIE_WHILE_MOUNTED = """
import os, signal, sys
from hostspec.store import open_store
root, run_root, option, place = sys.argv[1:]
store = open_store(root=root, run_root=run_root, driver="overlay", options=[option])
layer = store.container("container").layer
if place == "private":
    with store.driver.mounted(layer, read_only=False):
        os.kill(os.getpid(), signal.SIGKILL)
store.driver.mount(layer)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(ext4_directory: str) -> Iterator[Place]:
    """A place for a store that mounts by fuse-overlayfs; no process of it may be left in the end."""
    if os.geteuid() != 0:
        pytest.skip("these programs need root, to mount and to give files their owners")
    if not os.access(PROGRAM, os.X_OK) or not os.path.exists("/dev/fuse"):
        require_or_skip("fuse-overlayfs", f"needs {PROGRAM} and /dev/fuse")
    with tempfile.TemporaryDirectory(prefix="hostspec-") as run:
        found = Place(ext4_directory, run, "overlay")
        yield found
        end = time.monotonic() + _PATIENCE_SECONDS
        while left := [*programs(ext4_directory), *mounts_of(found)]:
            assert time.monotonic() < end, f"still there: {left}"
            time.sleep(0.01)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """That store, as hostspec opens it."""
    with opened(place) as found:
        yield found
        found.wipe()


@pytest.fixture
def image(store: Store, busybox_root: str) -> Image:
    """An image that hostspec imported."""
    return import_image(store, busybox_root, names=[NAME])


def opened(place: Place) -> Store:
    return open_store(root=place.graph, run_root=place.run, driver="overlay", options=[OPTION])


def mounts_of(place: Place) -> list[str]:
    """Return what is mounted there, after another try to take off the home what mounts it on itself.

    A program that is ending keeps the home busy for some moments more.
    """
    unbind_from_itself(os.path.join(place.graph, place.driver))
    return [*mount_points(place.directory), *mount_points(place.run)]


def programs(directory: str) -> list[str]:
    """Return the command lines of the program's processes that name something in a directory."""
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command.startswith(os.fsencode(PROGRAM)) and os.fsencode(directory) in command:
            found.append(os.fsdecode(command))
    return found


def mount_type(path: str) -> str:
    return next(entry.filesystem for entry in mount_table() if entry.mount_point == path)


def owner_of(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_uid, found.st_gid


@pytest.mark.usefixtures("image")
def test_a_container_is_written_by_both(place: Place, store: Store) -> None:
    require_program("containers-storage")
    layer = store.create_container(NAME, names=["container"]).layer

    ours = store.mount("container")
    assert mount_type(ours) == "fuse.fuse-overlayfs"
    Path(f"{ours}/etc/written").write_text("by hostspec", encoding="utf-8")
    os.chown(f"{ours}/etc/written", 7, 8)
    store.unmount("container")

    theirs = place.containers_storage("mount", f"--storage-opt={OPTION}", "container")
    assert mount_type(theirs) == "fuse.fuse-overlayfs"
    assert owner_of(f"{theirs}/etc/greeting") == GREETING_OWNER
    assert owner_of(f"{theirs}/etc/written") == (7, 8)
    os.unlink(f"{theirs}/etc/greeting")
    place.containers_storage("unmount", f"--storage-opt={OPTION}", "container")

    found = {str(each) for each in store.changes(layer)}
    assert {"Delete /etc/greeting", "Add /etc/written"} <= found


# Version 1.43 of the Go library maps the layers twice, by idmapped clones and by the program, and
# shows every file as nobody's: this is ours alone.
@pytest.mark.usefixtures("image")
def test_a_container_is_shown_under_its_map_and_written_without(store: Store) -> None:
    layer = store.create_container(NAME, names=["container"], idmap=IdMap.parse([MAP])).layer
    assert not store.layer(layer).idmap

    with store.mounting("container") as root:
        assert owner_of(f"{root}/etc/greeting") == tuple(100_000 + each for each in GREETING_OWNER)
        os.chown(f"{root}/etc/greeting", 100_007, 100_008)

    assert "Modify /etc/greeting" in {str(each) for each in store.changes(layer)}
    with store.diff(layer) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        assert [(each.uid, each.gid) for each in archive if each.name == "etc/greeting"] == [(7, 8)]


def test_what_the_go_library_deleted_is_gone(place: Place, store: Store, image: Image) -> None:
    require_program("containers-storage")
    child = place.containers_storage("create-layer", f"--storage-opt={OPTION}", image.layer or "").split()[0]
    tar = os.path.join(place.directory, "deletion.tar")
    Path(tar).write_bytes(tar_of({"etc/.wh.greeting": b""}))
    place.containers_storage("apply-diff", f"--storage-opt={OPTION}", "--file", tar, child)

    with store.mounting(child, read_only=True) as root:
        assert "greeting" not in os.listdir(f"{root}/etc")
    assert "Delete /etc/greeting" in {str(each) for each in store.changes(child)}


@pytest.mark.usefixtures("image")
def test_podman_runs_an_imported_image_by_the_same_program(place: Place) -> None:
    require_program("podman")
    told = place.podman("--storage-opt", OPTION, "run", "--rm", NAME, "/bin/cat", "/etc/greeting")
    assert told.strip() == GREETING.strip()


@pytest.mark.parametrize("where", ["shared", "private"])
@pytest.mark.usefixtures("image")
def test_after_a_killed_process_the_next_command_leaves_nothing_mounted(
    place: Place, store: Store, where: str
) -> None:
    store.create_container(NAME, names=["container"], idmap=IdMap.parse([MAP]))
    words = [place.graph, place.run, OPTION, where]
    done = subprocess.run([sys.executable, "-c", DIE_WHILE_MOUNTED, *words], check=False)
    assert done.returncode == -9
    assert programs(place.directory) != []

    with opened(place) as next_one:
        next_one.delete_container("container")
        next_one.collect_garbage()
        next_one.shutdown(force=True)
    assert not [
        each for each in mount_table() if place.directory in each.mount_point and "fuse" in each.filesystem
    ]
