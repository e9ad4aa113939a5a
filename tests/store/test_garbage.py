from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest, StoreCorrupt
from hostspec.store import Store, open_store
from tests.store.tars import tar_of

UNKNOWN = "0" * 64


@pytest.fixture(params=["vfs", "overlay"])
def full(request: pytest.FixtureRequest, ext4_directory: str) -> Iterator[Store]:
    """A store with an image, a container of it and big data of all kinds."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    root, run_root = f"{ext4_directory}/graph", f"{ext4_directory}/run"
    with open_store(root=root, run_root=run_root, driver=request.param) as store:
        layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
        store.set_big_data(layer, "item", b"x")
        image = store.create_image(layer.id, big_data={"manifest": b"{}"})
        container = store.create_container(image.id)
        store.set_big_data(container, "item", b"x")
        yield store
        store.wipe()


def everything(store: Store) -> set[str]:
    """Every path of the store, without the working areas and the reserve, which come and go."""
    found = {os.path.relpath(path, store.root) for path in Path(store.root).rglob("*")}
    passing = ("tempdirs", ".lock", "reserve")
    return {path for path in found if not any(each in path for each in passing)}


def test_a_store_without_garbage_stays_as_it_is(full: Store) -> None:
    before = everything(full)
    assert full.collect_garbage() == ()
    assert everything(full) == before


def test_driver_layers_without_record_go(full: Store) -> None:
    before = everything(full)
    for layer_id in ("stray", UNKNOWN):
        full.driver.create(layer_id)
        full.driver.commit(layer_id)
    assert sorted(full.collect_garbage()) == [UNKNOWN, "stray"]
    assert everything(full) == before


def test_files_without_record_go(full: Store) -> None:
    before = everything(full)
    for kind in ("layers", "images", "containers"):
        directory = Path(full.root, f"{full.driver_name}-{kind}", UNKNOWN)
        directory.mkdir()
        (directory / "item").write_bytes(b"x")
    Path(full.root, f"{full.driver_name}-layers", "gone.tar-split.gz").write_bytes(b"x")
    running = Path(full.run_root, f"{full.driver_name}-containers", UNKNOWN, "userdata")
    running.mkdir(parents=True)
    full.collect_garbage()
    assert everything(full) == before
    assert not running.exists()


def test_directories_of_other_names_are_somebody_elses(full: Store) -> None:
    directory = Path(full.root, f"{full.driver_name}-images", "notes")
    directory.mkdir()
    full.collect_garbage()
    assert directory.is_dir()


def test_a_layer_that_is_being_made_stays(full: Store) -> None:
    driver = full.driver
    driver.create("making")
    with open_store(root=full.root, run_root=full.run_root, driver=full.driver_name) as other:
        assert other.collect_garbage() == ()
    driver.commit("making")
    assert driver.exists("making")


def test_nothing_goes_while_a_record_cannot_be_read(full: Store) -> None:
    table = Path(full.root, f"{full.driver_name}-layers", "layers.json")
    intact = table.read_bytes()
    table.write_bytes(intact.replace(b'"id":', b'"id":7,"no":', 1))
    layers = sorted(full.driver.list_layers())
    with pytest.raises(StoreCorrupt, match="nothing is removed as unused"):
        full.collect_garbage()
    assert sorted(full.driver.list_layers()) == layers
    table.write_bytes(intact)


@pytest.mark.parametrize("kind", ["layers", "images", "containers"])
@pytest.mark.parametrize("way", ["gc", "repair"])
def test_nothing_goes_where_a_table_has_lost_its_content(full: Store, kind: str, way: str) -> None:
    table = Path(full.root, f"{full.driver_name}-{kind}", f"{kind}.json")
    intact = table.read_bytes()
    table.write_bytes(b"")
    before = everything(full)
    with pytest.raises(StoreCorrupt, match="lost what it held"):
        full.collect_garbage() if way == "gc" else full.repair(full.check(max_age=0), containers=True)
    assert everything(full) == before
    table.write_bytes(intact)


@pytest.mark.parametrize("kind", ["layers", "images"])
def test_what_a_record_names_is_no_garbage_even_without_a_record_of_its_own(full: Store, kind: str) -> None:
    table = Path(full.root, f"{full.driver_name}-{kind}", f"{kind}.json")
    aside = table.rename(table.with_suffix(".aside"))
    before = everything(full)
    with pytest.raises(StoreCorrupt, match="Restore the file from a copy, or delete"):
        full.collect_garbage()
    assert everything(full) == before
    aside.rename(table)


def test_nothing_goes_while_transient_containers_are_hidden(full: Store) -> None:
    image = full.images()[0]
    root, run_root, driver = full.root, full.run_root, full.driver_name
    with open_store(root=root, run_root=run_root, driver=driver, transient=True) as transient:
        container = transient.create_container(image.id)
        with pytest.raises(InvalidRequest, match="opened as a transient one"):
            full.collect_garbage()
        transient.delete_container(container.id)
    full.collect_garbage()
