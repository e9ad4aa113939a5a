"""A store on a file system without any room left: whole, with clear errors, and able to make room."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostspec.errors import DriverFailed, HostspecError
from hostspec.kernel.loop import loop_filesystem
from hostspec.kernel.mountinfo import mount_points
from hostspec.run.runs import last_record
from hostspec.store import Image, Layer, Store, open_store
from hostspec.store.format.layout import Layout
from hostspec.store.graph_root import GraphRoot
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import require_mkfs
from tests.store.tars import tar_of

_SIZE_BYTES = {"ext4": 32 << 20, "xfs": 320 << 20}
_CONTENT = random.Random(0).randbytes(2 << 20)  # noqa: S311 - content that no file system compresses


@pytest.fixture(params=[("overlay", "ext4"), ("vfs", "ext4"), ("overlay", "xfs")], ids="-".join)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with an image and a container, on a small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a scratch file system")
    driver, kind = request.param
    require_mkfs(kind)
    with tempfile.TemporaryDirectory() as workplace:
        try:
            place = loop_filesystem(kind, workplace, size_bytes=_SIZE_BYTES[kind])
            root = place.__enter__()
        except OSError as refusal:
            require_or_skip(kind, f"no scratch file system here: {refusal}")
        try:
            tar = tmp_path / "layer.tar"
            tar.write_bytes(tar_of({"file": _CONTENT}))
            with open_store(root=f"{root}/graph", run_root=str(tmp_path / "run"), driver=driver) as opened:
                layer = opened.import_layer(tar, layer_id="base")
                opened.create_image(layer.id, image_id="image", big_data={"manifest": b"{}"})
                opened.create_container("image", container_id="work")
                opened.collect_garbage()
                yield opened
                opened.wipe()
                opened.shutdown(force=True)
        finally:
            place.__exit__(None, None, None)


def _fill_up(store: Store) -> None:
    """Leave not a single block."""
    for size in (1 << 20, 4096, 1):
        try:
            with open(f"{os.path.dirname(store.root)}/filler-{size}", "ab", buffering=0) as file:
                while True:
                    file.write(b"x" * size)
        except OSError:
            continue


@contextmanager
def _read_only(mount_point: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", mount_point], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount_point], check=True)


def _everything(store: Store) -> tuple[object, ...]:
    return store.layers(), store.images(), store.containers()


def test_what_has_no_room_fails_by_name_and_leaves_the_store_as_it_was(store: Store, tmp_path: Path) -> None:
    _fill_up(store)
    before = _everything(store)
    for attempt in (
        lambda: store.import_layer(tmp_path / "layer.tar", layer_id="more"),
        lambda: store.create_container("image", container_id="more"),
        lambda: store.create_image("base", image_id="more"),
        lambda: store.set_big_data(store.image("image"), "more", _CONTENT),
        lambda: store.set_big_data(store.image("image"), "more", b"fits into any buffer"),
    ):
        with pytest.raises(DriverFailed, match=r"No space left on device.*") as refused:
            attempt()
        assert store.root in str(refused.value)
    assert _everything(store) == before
    assert not store.check()


def test_an_item_is_replaced_wholly_or_not_at_all(store: Store) -> None:
    store.set_metadata("image", "long " * 20_000)  # so that the item may have room, and the record none
    image = store.image("image")
    outcomes = set()
    filler = f"{os.path.dirname(store.root)}/filler-{1 << 20}"
    _fill_up(store)
    for attempt in range(48):
        content = b"%d" % attempt
        before = store.big_data(image, "manifest")
        try:
            store.set_big_data(image, "manifest", content)
        except DriverFailed:
            outcomes.add("refused")
            assert store.big_data(image, "manifest") == before
        else:
            outcomes.add("set")
            assert store.big_data(image, "manifest") == content
        assert not store.check()
        os.truncate(filler, os.stat(filler).st_size - 4096)
    assert outcomes == {"refused", "set"}


def test_very_much_can_be_removed_in_one_step(store: Store) -> None:
    """Though there is not a block for each of the objects."""
    root = GraphRoot(Layout(store.root, store.run_root, store.driver_name))
    with root.editing() as edits:
        parent = "base"
        for number in range(1000):
            edits.layers.put(Layer(id=f"layer-{number}", parent=parent))
            edits.images.put(Image(id=f"image-{number}"))
            parent = f"layer-{number}"
        edits.images.put(Image(id="high", layer=parent))
        edits.images.save()
        edits.layers.save()
    root.clear_up()
    _fill_up(store)
    store.delete_image("high")
    assert [layer.id for layer in store.layers()] == ["base", store.container("work").layer]
    _fill_up(store)
    store.wipe()
    assert _everything(store) == ((), (), ())


def test_a_container_can_be_looked_into(store: Store) -> None:
    _fill_up(store)
    path = store.mount("work")
    assert Path(path, "file").read_bytes() == _CONTENT
    assert store.unmount("work")


def test_what_cannot_be_counted_is_not_left_mounted(store: Store) -> None:
    run_root = f"{os.path.dirname(store.root)}/run"
    with open_store(root=store.root, run_root=run_root, driver=store.driver_name) as opened:
        opened.mount("work")
        opened.unmount("work")
        _fill_up(store)
        with pytest.raises(DriverFailed, match="No space left on device"):
            opened.mount("work")
        assert set(mount_points(store.root)) <= {store.driver.home}


def test_one_that_became_read_only_can_be_looked_into_and_let_go(store: Store) -> None:
    """As after an error of its device: before it can be repaired, all has to be unmounted."""
    store.mount("work")
    store.close()
    with (
        _read_only(os.path.dirname(store.root)),
        open_store(root=store.root, run_root=store.run_root, driver=store.driver_name) as opened,
    ):
        assert opened.status()
        assert opened.disk_space().inodes > 0
        assert not opened.check()
        assert last_record(opened, opened.container("work")) is None
        path = opened.mount("image", read_only=True)
        assert Path(path, "file").read_bytes() == _CONTENT
        assert opened.unmount("image")
        assert opened.unmount("work")
        with pytest.raises(HostspecError, match="Read-only"):
            opened.create_container("image")
    assert set(mount_points(store.root)) <= {store.driver.home}
    assert not store.check()


def test_everything_can_be_deleted(store: Store) -> None:
    for kind, name in (("container", "work"), ("image", "image")):
        _fill_up(store)
        # As by a command of its own, which opens the store anew.
        with open_store(root=store.root, run_root=store.run_root, driver=store.driver_name) as opened:
            opened.delete_container(name) if kind == "container" else opened.delete_image(name)
    assert _everything(store) == ((), (), ())
