from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hostspec.errors import DriverFailed, InUse, InvalidRequest, StoreCorrupt, Unknown
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import unmount
from hostspec.store import Image, Store
from tests.store.conftest import OpenStore


def counts(store: Store) -> list[dict[str, object]]:
    path = Path(store.run_root, f"{store.driver_name}-layers/mountpoints.json")
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


def test_users_are_counted_for_all_processes(store: Store, image: Image, open_here: OpenStore) -> None:
    container = store.create_container(image.id, names=["c"])
    path = store.mount("c")
    with open_here() as other:
        assert other.mount(container.id) == path
        assert counts(store) == [{"id": container.layer, "path": path, "count": 2}]
        assert other.mounted("c") == store.mounted(container.layer) == 2
        assert store.unmount("c") is False
        assert other.unmount("c") is True
    assert counts(store) == []
    assert store.mounted("c") == 0


def test_what_is_not_mounted_cannot_be_unmounted(store: Store, image: Image) -> None:
    with pytest.raises(InvalidRequest, match="not mounted"):
        store.unmount(image.id)
    with pytest.raises(Unknown):
        store.unmount("missing")
    with pytest.raises(Unknown):
        store.mount("missing")
    assert store.unmount(image.id, force=True) is True


def test_force_takes_a_mount_down_whoever_uses_it(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    store.mount(container.id)
    store.mount(container.id)
    assert store.unmount(container.id, force=True) is True
    assert store.mounted(container.id) == 0


def test_a_block_unmounts_also_when_it_fails(store: Store, image: Image) -> None:
    def run() -> None:
        with store.mounting(image.id):
            assert store.mounted(image.id) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert store.mounted(image.id) == 0


def test_shutting_down_refuses_while_mounts_are_in_use(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    path = store.mount(container.id)
    with pytest.raises(InUse) as caught:
        store.shutdown()
    assert caught.value.users == (path,)
    assert store.shutdown(force=True) == ()
    assert store.mounted(container.id) == 0
    assert store.shutdown() == ()


def test_damaged_counts_are_named_with_the_way_out(store: Store, image: Image) -> None:
    store.mount(image.id)
    path = Path(store.run_root, "vfs-layers/mountpoints.json")
    path.write_text('[{"id":')
    with pytest.raises(StoreCorrupt, match="delete the file"):
        store.mount(image.id)


@pytest.fixture
def overlay_container(open_here: OpenStore) -> Store:
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    store = open_here(driver="overlay")
    base = store.create_layer()
    store.create_container(store.create_image(base.id).id, names=["c"])
    return store


def test_an_overlay_is_mounted_once_and_goes_with_its_last_user(overlay_container: Store) -> None:
    store = overlay_container
    path = store.mount("c")
    assert store.mount("c") == path
    assert is_mountpoint(path)
    store.unmount("c")
    assert is_mountpoint(path)
    store.unmount("c")
    assert not is_mountpoint(path)


def test_a_count_without_a_mount_means_mount_again(overlay_container: Store) -> None:
    store = overlay_container
    path = store.mount("c")
    unmount(path)
    assert store.mount("c") == path
    assert is_mountpoint(path)
    assert store.mounted("c") == 2
    store.unmount("c", force=True)


def test_a_busy_mount_stays_mounted_and_counted(overlay_container: Store) -> None:
    store = overlay_container
    path = store.mount("c")
    with subprocess.Popen(["sleep", "60"], cwd=path) as user:
        try:
            with pytest.raises(DriverFailed):
                store.unmount("c")
            with pytest.raises(DriverFailed):
                store.delete_container("c")
            assert store.mounted("c") == 1
            assert store.has_container("c")
        finally:
            user.kill()
    assert store.unmount("c") is True
    store.delete_container("c")


def test_a_refused_unmount_does_not_take_the_mount_from_later_users(overlay_container: Store) -> None:
    store = overlay_container
    path = store.mount("c")
    with subprocess.Popen(["sleep", "60"], cwd=path) as user:
        try:
            with pytest.raises(DriverFailed):
                store.unmount("c")
            store.mount("c")
        finally:
            user.kill()
    store.layers()
    assert is_mountpoint(path)
    assert store.mounted("c") == 2
    store.unmount("c", force=True)
