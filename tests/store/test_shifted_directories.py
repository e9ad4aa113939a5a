"""Shifted containers of drivers whose layers are directories: their mounts end with their records."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint, mount_points
from hostspec.store import Container, Store, open_store
from hostspec.testing.directory_layers import as_ordinary_user
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.tars import tar_of

MAPPED = IdMap.parse(["0:100000:65536"])


@pytest.fixture(params=["vfs", "btrfs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("only root can shift")
    directory = directory_for(request.param, request)
    with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=request.param) as opened:
        if not (shifting := opened.driver.supports_shifting(MAPPED)).possible:
            require_or_skip(request.param, shifting.reason)
        yield opened
        opened.shutdown(force=True)
        assert mount_points(os.path.realpath(directory)) == []


@pytest.fixture
def container(store: Store) -> Container:
    """A container with a map, on an image that has none."""
    layer = store.import_layer(io.BytesIO(tar_of({"etc": None, "etc/name": b"content"}, uid=10, gid=20)))
    store.create_image(layer.id, names=["image"], big_data={"manifest": b"{}"})
    return store.create_container("image", names=["container"], idmap=MAPPED)


def test_its_layer_and_all_that_it_writes_are_unmapped_on_disk(store: Store, container: Container) -> None:
    path = store.mount("container")
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def work() -> None:
        os.close(os.open("written", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=place))

    assert as_ordinary_user(work, user=100_000) == 0
    os.close(place)
    os.chown(f"{path}/etc/name", *MAPPED.to_host(7, 8))
    store.unmount("container")

    assert store.layer(container.layer).idmap == IdMap()
    assert [str(change) for change in store.changes("container")] == [
        "Modify /etc",
        "Modify /etc/name",
        "Add /written",
    ]
    with store.diff("container") as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as archive:
        owners = {member.name: (member.uid, member.gid) for member in archive}
    assert (owners["etc/name"], owners["written"]) == ((7, 8), (0, 0))


def test_its_layer_can_be_the_top_of_an_image_since_it_carries_container_ids(
    store: Store, container: Container
) -> None:
    image = store.create_image(container.layer, names=["made"])
    with store.mounting("made", read_only=True) as path:
        assert os.stat(f"{path}/etc/name").st_uid == 10
    store.delete_image("made")
    assert image.layer == store.container("container").layer


def test_its_mount_is_counted_and_goes_with_the_last_user(store: Store, container: Container) -> None:
    path = store.mount("container")
    assert store.mount("container") == path
    assert path == f"{store.run_root}/{store.driver_name}/shifted/{container.layer}"
    assert os.stat(f"{path}/etc/name").st_uid == 100_010
    assert not store.unmount("container")
    assert is_mountpoint(path)
    assert store.unmount("container")
    assert not os.path.exists(path)


def test_a_container_that_is_deleted_is_unmounted(store: Store, container: Container) -> None:
    path = store.mount(container.id)
    store.delete_container(container.id)
    assert not os.path.exists(path)


@pytest.mark.parametrize("what", ["mount", "unmount"])
@pytest.mark.parametrize("event", ["started", "finished"])
def test_who_is_killed_leaves_a_mount_that_is_counted_or_none(
    store: Store, container: Container, what: str, event: str
) -> None:
    if what == "unmount":
        store.mount("container")
    path = f"{store.run_root}/{store.driver_name}/shifted/{container.layer}"
    words = [store.root, store.run_root, store.driver_name, what, event, what]
    root = str(Path(__file__).parents[2])
    died = subprocess.run([sys.executable, "-m", "tests.store.dying", *words], cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL

    store.layers()

    assert is_mountpoint(path) == bool(store.mounted("container"))
    assert bool(store.mounted("container")) == (what == "unmount" and event == "started")


def test_containers_storage_refuses_it_and_does_not_show_wrong_owners(
    store: Store, container: Container
) -> None:
    if shutil.which("containers-storage") is None:
        require_or_skip("containers-storage", "is not installed; Debian's package has the same name")
    words = ["--graph", store.root, "--run", store.run_root, "--storage-driver", store.driver_name]
    done = subprocess.run(
        ["containers-storage", *words, "mount", container.id],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull},
    )

    assert done.returncode != 0
    assert "shifting not enabled" in done.stdout + done.stderr
