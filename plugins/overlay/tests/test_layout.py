from __future__ import annotations

import os
import re

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate, InvalidRequest, StoreCorrupt, StoreReadOnly
from hostspec.idmap import IdMap
from hostspec.values import CreateOptions, LayerRef

from .conftest import AddLayer, OpenOverlay

MAPPED = IdMap.parse(["0:200000:65536"])


def contents(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_a_base_layer_has_the_files_of_the_go_driver(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "base")

    assert sorted(os.listdir(f"{driver.home}/base")) == ["diff", "empty", "link", "merged", "work"]
    link = contents(f"{driver.home}/base/link")
    assert re.fullmatch("[A-Z2-7]{26}", link)
    assert os.readlink(f"{driver.home}/l/{link}") == "../base/diff"


def test_lower_names_all_layers_below_by_their_short_names(driver: GraphDriver, add_layer: AddLayer) -> None:
    bottom = add_layer(driver, "bottom")
    middle = add_layer(driver, "middle", bottom)
    add_layer(driver, "top", middle)

    names = [contents(f"{driver.home}/{layer}/link") for layer in ("middle", "bottom")]
    assert contents(f"{driver.home}/top/lower") == f"l/{names[0]}:l/{names[1]}"
    assert not os.path.exists(f"{driver.home}/bottom/lower")


def test_a_staged_layer_is_in_the_working_area_only(driver: GraphDriver) -> None:
    driver.create("staged")

    assert sorted(os.listdir(driver.home)) == ["l", "tempdirs"]
    assert os.listdir(f"{driver.home}/l") == []


def test_directories_that_are_no_layers_are_not_listed(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer")
    for name in ("staging", "compat123", "compat123/diff", "metacopy-check99", "not-a-layer"):
        os.mkdir(f"{driver.home}/{name}")

    assert driver.list_layers() == ["layer"]


@pytest.mark.parametrize("layer_id", ["l", "tempdirs", "staging", "", ".", "..", "a/b"])
def test_an_id_that_the_layout_cannot_hold_is_refused(driver: GraphDriver, layer_id: str) -> None:
    with pytest.raises(InvalidRequest):
        driver.create(layer_id)
    assert not driver.exists(layer_id)


def test_a_short_name_that_got_lost_is_made_again(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base", None, {"file": "kept"})
    add_layer(driver, "child", base)
    link = contents(f"{driver.home}/base/link")
    os.unlink(f"{driver.home}/l/{link}")

    with driver.mounted("child") as root:
        assert contents(f"{root}/file") == "kept"
    assert os.readlink(f"{driver.home}/l/{link}") == "../base/diff"


def test_a_link_file_that_got_lost_is_made_again(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base")
    link = contents(f"{driver.home}/base/link")
    os.unlink(f"{driver.home}/base/link")

    add_layer(driver, "child", base)

    assert contents(f"{driver.home}/base/link") == link
    assert contents(f"{driver.home}/child/lower") == f"l/{link}"


def test_a_layer_below_that_is_missing_is_named(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "child", add_layer(driver, "base"))
    os.rename(f"{driver.home}/base", f"{driver.home}/tempdirs/base")

    with pytest.raises(StoreCorrupt, match="child/lower"):
        driver.mount("child")


def test_the_root_directory_begins_as_the_one_below(driver: GraphDriver, add_layer: AddLayer) -> None:
    driver.create("base")
    with driver.mounted("base", read_only=False) as root:
        os.chown(root, 12, 34)
        os.chmod(root, 0o2750)
        os.setxattr(root, "user.mark", b"x")
        os.utime(root, ns=(0, 1_234_567_891))
    driver.commit("base")

    add_layer(driver, "child", LayerRef("base"))

    with driver.mounted("child") as root:
        found = os.stat(root)
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12, 34, 0o2750)
        assert found.st_mtime_ns == 1_234_567_891
        assert os.getxattr(root, "user.mark") == b"x"


def test_an_empty_root_belongs_to_the_mapped_root(driver: GraphDriver) -> None:
    driver.create("mapped", None, CreateOptions(idmap=MAPPED))
    driver.commit("mapped")

    for name in ("", "/diff", "/work"):
        found = os.stat(f"{driver.home}/mapped{name}")
        assert (found.st_uid, found.st_gid) == (200_000, 200_000)


def test_a_staged_layer_can_stand_on_another(driver: GraphDriver) -> None:
    driver.create("parent")
    with (
        driver.mounted("parent", read_only=False) as root,
        open(f"{root}/file", "w", encoding="utf-8") as file,
    ):
        file.write("from the parent")
    driver.create("child", LayerRef("parent"))

    with driver.mounted("child") as root:
        assert contents(f"{root}/file") == "from the parent"
    driver.commit("parent")
    driver.commit("child")
    with driver.mounted("child") as root:
        assert contents(f"{root}/file") == "from the parent"


def test_of_two_that_commit_one_id_the_second_is_told(ext4_directory: str, open_overlay: OpenOverlay) -> None:
    first, second = open_overlay(ext4_directory), open_overlay(ext4_directory)
    first.create("same")
    second.create("same")
    first.commit("same")

    with pytest.raises(Duplicate):
        second.commit("same")
    second.remove("same")
    assert first.list_layers() == ["same"]


def test_a_chain_may_begin_in_an_additional_store(
    ext4_directory: str, xfs_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    elsewhere = open_overlay(xfs_directory)
    base = add_layer(elsewhere, "base", None, {"file": "from elsewhere"})
    driver = open_overlay(ext4_directory, read_only_homes=(elsewhere.home,))

    add_layer(driver, "child", base, {"own": "x"})

    for layer_id in ("base", "child"):
        with driver.mounted(layer_id) as root:
            assert contents(f"{root}/file") == "from elsewhere"
        shared = driver.mount(layer_id)
        assert contents(f"{shared}/file") == "from elsewhere"
        driver.unmount(layer_id, shared)
    assert driver.exists("base")
    assert driver.list_layers() == ["child"]
    with pytest.raises(StoreReadOnly):
        driver.remove("base")
