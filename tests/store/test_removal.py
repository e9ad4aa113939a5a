from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from hostspec.errors import DriverFailed, InUse, LayerInUse, Unknown
from hostspec.idmap import IdMap
from hostspec.store import Image, Store, open_store
from hostspec.values import CreateOptions, LayerRef
from tests.peers.clients import require_program
from tests.store.tars import MAP, OTHER_MAP, tar_of

MAPPED = IdMap.parse([MAP])


def test_a_layer_that_others_stand_on_stays(store: Store, image: Image) -> None:
    top = store.layer(image.layer or "")
    with pytest.raises(LayerInUse) as caught:
        store.delete_layer(top.parent or "")
    assert caught.value.users == (top.id,)
    with pytest.raises(LayerInUse) as caught:
        store.delete_layer(top.id)
    assert caught.value.users == (image.id,)
    container = store.create_container()
    with pytest.raises(LayerInUse) as caught:
        store.delete_layer(container.layer)
    assert caught.value.users == (container.id,)
    assert len(store.layers()) == 3


def test_a_deleted_layer_leaves_nothing(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
    store.set_big_data(layer, "item", b"x")
    store.delete_layer(layer.id)
    left = [str(path) for path in Path(store.root).rglob("*") if layer.id in str(path)]
    assert left == []
    assert list(store.driver.list_layers()) == []
    with pytest.raises(Unknown):
        store.delete_layer(layer.id)


def test_an_image_in_use_stays(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    with pytest.raises(InUse) as caught:
        store.delete_image("image")
    assert caught.value.users == (container.id,)
    assert store.has_image("image")


def test_an_image_goes_with_its_copies_and_its_layers_in_that_order(store: Store, image: Image) -> None:
    for idmap in (MAP, OTHER_MAP):
        store.delete_container(store.create_container(image.id, idmap=IdMap.parse([idmap])).id)
    copies = store.image(image.id).mapped_layers
    top = store.layer(image.layer or "")
    expected = (*copies, top.id, top.parent)
    assert store.delete_image("image", dry_run=True) == expected
    assert store.has_image("image")
    assert store.delete_image("image") == expected
    assert (store.layers(), store.images(), list(store.driver.list_layers())) == ((), (), [])
    assert not os.path.exists(os.path.join(store.root, "vfs-images", image.id))


def test_layers_that_others_need_stay(store: Store, image: Image) -> None:
    top = store.layer(image.layer or "")
    child = store.create_layer(top.id)
    same_top = store.create_image(top.id)
    assert store.delete_image(image.id) == ()
    assert store.delete_image(same_top.id) == ()
    on_child = store.create_image(child.id)
    assert store.delete_image(on_child.id) == (child.id, top.id, top.parent)


def test_a_container_goes_with_its_layer_and_directories(store: Store, image: Image) -> None:
    container = store.create_container(image.id, names=["c"])
    store.set_big_data(container, "item", b"x")
    os.makedirs(os.path.join(store.run_root, "vfs-containers", container.id, "userdata"))
    store.mount("c")
    store.delete_container("c")
    assert store.containers() == ()
    assert not store.has_layer(container.layer)
    for root in (store.root, store.run_root):
        assert [str(path) for path in Path(root).rglob("*") if container.id in str(path)] == []


def test_a_container_on_whose_layer_an_image_stands_stays(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    committed = store.create_image(container.layer)
    with pytest.raises(LayerInUse) as caught:
        store.delete_container(container.id)
    assert caught.value.users == (committed.id,)
    assert store.has_container(container.id)


def test_delete_takes_whatever_has_the_id(store: Store, image: Image) -> None:
    container = store.create_container(image.id, names=["c"])
    store.delete("c")
    assert not store.has_layer(container.layer)
    store.delete("image")
    assert store.images() == ()
    assert store.has_layer(image.layer or "")
    store.delete(image.layer or "")
    assert len(store.layers()) == 1
    with pytest.raises(Unknown):
        store.delete("missing")


@contextmanager
def immutable(directory: str) -> Iterator[None]:
    """Nothing in a directory, nor it itself, can be renamed; this stands for any such refusal."""
    require_program("chattr", package="e2fsprogs")
    if subprocess.run(["chattr", "+i", directory], check=False, capture_output=True).returncode != 0:
        pytest.skip("no immutable flag here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", directory], check=True)


def unmovable_layers(store: Store) -> AbstractContextManager[None]:
    """The driver cannot rename layers away."""
    return immutable(os.path.join(store.driver.home, "dir"))


def test_what_the_driver_refuses_to_remove_is_still_there_whole(store: Store, image: Image) -> None:
    before = {layer.id for layer in store.layers()}
    with unmovable_layers(store), pytest.raises(DriverFailed):
        store.delete_image(image.id)
    assert store.images() == (image,)
    assert {layer.id for layer in store.layers()} == set(store.driver.list_layers()) == before
    with store.mounting(image.id) as path:
        assert Path(path, "etc/name").read_bytes() == b"top\n"


def test_what_a_refused_layer_stands_on_stays_with_it(store: Store, image: Image) -> None:
    before = {layer.id for layer in store.layers()}
    with immutable(os.path.join(store.driver.home, "dir", image.layer or "")), pytest.raises(DriverFailed):
        store.delete_image(image.id)
    assert store.images() == (image,)
    assert {layer.id for layer in store.layers()} == set(store.driver.list_layers()) == before
    assert not store.check()


def image_under_an_unrecorded_layer(store: Store) -> Image:
    """Leave what a program leaves that dies between making a layer and recording it."""
    layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
    store.driver.create("f" * 64, LayerRef(layer.id, IdMap()), CreateOptions())
    store.driver.commit("f" * 64)
    return store.create_image(layer.id, names=["image"])


def test_a_copy_that_the_driver_refuses_to_remove_is_still_its_images(store: Store, image: Image) -> None:
    store.delete_container(store.create_container(image.id, idmap=MAPPED).id)
    before = store.image(image.id)
    (copy,) = before.mapped_layers
    for delete in (store.delete_layer, store.delete):
        with unmovable_layers(store), pytest.raises(DriverFailed):
            delete(copy)
        assert store.image(image.id) == before
        assert store.has_layer(copy)
    store.delete_layer(copy)
    assert store.image(image.id).mapped_layers == ()


def test_an_image_under_a_layer_without_a_record_stays_without_its_copies(overlay_store: Store) -> None:
    store = overlay_store
    image = image_under_an_unrecorded_layer(store)
    container = store.create_container(image.id, idmap=MAPPED, strategy="copy")
    store.delete_container(container.id)
    assert len(store.image(image.id).mapped_layers) == 1
    with pytest.raises(LayerInUse):
        store.delete_image(image.id)
    assert store.images() == (image,)
    assert [layer.id for layer in store.layers()] == [image.layer]
    with store.mounting(image.id) as path:
        assert Path(path, "file").read_bytes() == b"x"
    store.collect_garbage()
    store.delete_image(image.id)
    assert list(store.driver.list_layers()) == []


def test_everything_goes_even_under_layers_without_a_record(overlay_store: Store) -> None:
    store = overlay_store
    image = image_under_an_unrecorded_layer(store)
    store.create_container(image.id)
    store.driver.create("e" * 64, LayerRef("f" * 64, IdMap()), CreateOptions())
    store.driver.commit("e" * 64)
    store.wipe()
    assert (store.layers(), store.images(), store.containers()) == ((), (), ())
    assert list(store.driver.list_layers()) == []


def test_a_refused_volatile_layer_is_recorded_again_as_volatile(tmp_path: Path) -> None:
    root, run_root = str(tmp_path / "graph"), str(tmp_path / "run")
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_store(root=root, run_root=run_root, driver="overlay", transient=True) as store:
        container = store.create_container()
        store.driver.create("f" * 64, LayerRef(container.layer, IdMap()), CreateOptions())
        store.driver.commit("f" * 64)
        with pytest.raises(LayerInUse):
            store.delete_container(container.id)
        assert store.containers() == (container,)
    with open_store(root=root, run_root=run_root, driver="overlay", transient=False) as durable:
        assert (durable.layers(), durable.containers()) == ((), ())
