"""The Go library on the directories in which btrfs and vfs keep layers, and these drivers on its own.

The drivers alone, without a store of ours: nobody but the Go library writes records here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.kernel.mountinfo import mount_points
from hostspec.plugins import open_driver
from hostspec.values import LayerRef, MountOptions
from tests.peers.clients import Place, require_program

btrfs_and_vfs = pytest.mark.parametrize("place", ["btrfs", "vfs"], indirect=True)


@pytest.fixture
def driver(place: Place) -> Iterator[GraphDriver]:
    require_program("containers-storage")
    home, run_root = (os.path.join(each, place.driver) for each in (place.graph, place.run))
    driver = open_driver(place.driver, home=home, run_root=run_root)
    yield driver
    driver.cleanup()


@btrfs_and_vfs
def test_we_see_and_remove_layers_of_the_go_library(place: Place, driver: GraphDriver) -> None:
    place.containers_storage("create-layer", "-i", "base")
    place.containers_storage("create-layer", "-i", "child", "base")
    tree = place.containers_storage("mount", "child")
    Path(tree, "file").write_text("x")
    assert sorted(driver.list_layers()) == ["base", "child"]
    assert driver.mount("child") == tree
    assert [str(change) for change in driver.changes(LayerRef("child"), LayerRef("base"))] == ["Add /file"]
    driver.remove("child")
    driver.reclaim()
    assert driver.list_layers() == ["base"]


@btrfs_and_vfs
def test_the_go_library_mounts_and_diffs_layers_that_we_made(place: Place, driver: GraphDriver) -> None:
    place.containers_storage("create-layer", "-i", "base")
    place.containers_storage("create-layer", "-i", "child", "base")
    Path(place.containers_storage("mount", "base"), "old").write_text("x")
    # Its records stay; the layer's tree is now ours.
    driver.remove("child")
    driver.create("child", LayerRef("base"))
    Path(driver.mount("child"), "new").write_text("y")
    driver.commit("child")
    assert sorted(os.listdir(place.containers_storage("mount", "child"))) == ["new", "old"]
    assert place.containers_storage("changes", "child") == 'Add "/new"'
    assert place.containers_storage("layers").split() == ["base", "child"]
    driver.reclaim()
    place.containers_storage("delete-layer", "child")
    assert driver.list_layers() == ["base"]


@btrfs_and_vfs
def test_the_go_library_leaves_what_we_are_making_alone(
    place: Place, driver: GraphDriver, tmp_path: Path
) -> None:
    place.containers_storage("create-layer", "-i", "base")
    driver.create("staged", LayerRef("base"))
    Path(driver.mount("staged"), "file").write_text("x")
    target = tmp_path / "target"
    target.mkdir()
    driver.mount("staged", MountOptions(target=str(target)))
    place.containers_storage("create-layer", "-i", "other", "base")
    place.containers_storage("layers")
    driver.commit("staged")
    assert (target / "file").read_text() == "x"
    driver.unmount("staged", str(target))
    assert sorted(driver.list_layers()) == ["base", "other", "staged"]


@pytest.mark.parametrize("place", ["btrfs"], indirect=True)
def test_the_mount_that_the_go_library_leaves_goes_at_the_end(place: Place, driver: GraphDriver) -> None:
    place.containers_storage("create-layer", "-i", "base")
    assert mount_points(driver.home) == [driver.home]
    driver.cleanup()
    assert mount_points(driver.home) == []
