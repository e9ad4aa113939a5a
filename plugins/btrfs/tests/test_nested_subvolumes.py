"""Subvolumes that lie in layers, and layers that are none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import StoreReadOnly
from hostspec.idmap import IdMap
from hostspec.testing.directory_layers import committed
from hostspec.testing.requirements import require_or_skip
from hostspec.values import CreateOptions, LayerRef
from hostspec_btrfs import ioctls
from hostspec_btrfs.subvolumes import nested_paths, opened_path

from .conftest import MAPPED, btrfs, is_subvolume, nested_in, opened, subvolumes_of


def test_a_snapshot_has_what_nested_subvolumes_hold(driver: GraphDriver) -> None:
    nested_in(committed(driver, "base"))
    child = committed(driver, "child", "base")
    for place, owner in (("direct", 1), ("var/lib/machines", 5), ("var/lib/machines/inner", 6)):
        assert os.stat(os.path.join(child, place)).st_uid == owner
        Path(child, place, "new").write_text("writable")
    assert Path(child, "var/lib/machines/inner/file").read_text() == "kept"
    lib = os.stat(os.path.join(driver.mount("base"), "var/lib"))
    assert os.stat(os.path.join(child, "var/lib")).st_mtime_ns == lib.st_mtime_ns
    assert not os.path.exists(os.path.join(driver.mount("base"), "direct", "new"))


def test_a_copy_with_nested_subvolumes_shows_no_change(driver: GraphDriver) -> None:
    nested_in(committed(driver, "template"))
    driver.create_from_template("copy", LayerRef("template"))
    assert list(driver.changes(LayerRef("copy"), LayerRef("template"))) == []


def test_an_ownership_pass_reaches_nested_subvolumes(driver: GraphDriver) -> None:
    nested_in(committed(driver, "base"))
    driver.create("child", LayerRef("base"))
    driver.update_idmap("child", IdMap(), MAPPED)
    child = driver.mount("child")
    owners = {
        place: os.stat(os.path.join(child, place)).st_uid - 100000
        for place in ("direct", "var/lib/machines", "var/lib/machines/inner", "var/lib/machines/inner/file")
    }
    assert owners == {
        "direct": 1,
        "var/lib/machines": 5,
        "var/lib/machines/inner": 6,
        "var/lib/machines/inner/file": 7,
    }


def test_nested_subvolumes_go_with_their_layer(driver: GraphDriver) -> None:
    nested_in(committed(driver, "base"))
    committed(driver, "child", "base")
    before = len(subvolumes_of(driver))
    driver.remove("base")
    driver.remove("child")
    driver.reclaim()
    assert before == 8
    assert subvolumes_of(driver) == []


def test_read_only_subvolumes_go_with_their_layer(driver: GraphDriver) -> None:
    tree = committed(driver, "base")
    nested_in(tree)
    for place in ("var/lib/machines/inner", "var/lib/machines", "direct", ""):
        btrfs("property", "set", os.path.join(tree, place), "ro", "true")
    driver.remove("base")
    driver.reclaim()
    assert subvolumes_of(driver) == []
    assert driver.list_layers() == []


def test_immutable_files_go_with_their_layer(driver: GraphDriver) -> None:
    if shutil.which("chattr") is None:
        require_or_skip("chattr", "is not installed; Debian's package is e2fsprogs")
    tree = committed(driver, "base", file="x")
    nested_in(tree)
    machines = os.path.join(tree, "var/lib/machines")
    for path in (os.path.join(tree, "file"), os.path.join(machines, "inner", "file")):
        subprocess.run(["chattr", "+i", path], check=True)
    btrfs("property", "set", machines, "ro", "true")
    driver.remove("base")
    driver.reclaim()
    assert subvolumes_of(driver) == []


def test_a_subvolume_deeper_than_any_path_goes_with_its_layer(driver: GraphDriver) -> None:
    here = os.open(committed(driver, "base"), os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    for name in ("writable", "sealed"):
        ioctls.create_subvolume(here, name)
        nested = os.open(name, os.O_RDONLY, dir_fd=here)
        ioctls.create_subvolume(nested, "inner")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=nested))
        ioctls.set_read_only(nested, name == "sealed")
        os.close(nested)
    os.close(here)
    driver.remove("base")
    driver.reclaim()
    assert subvolumes_of(driver) == []


def test_many_nested_subvolumes_go_with_their_layer(driver: GraphDriver) -> None:
    with opened_path(committed(driver, "base")) as tree:
        for number in range(300):
            ioctls.create_subvolume(tree, str(number))
        assert sorted(map(int, nested_paths(tree))) == list(range(300))
    driver.remove("base")
    driver.reclaim()
    assert subvolumes_of(driver) == []


def test_a_layer_that_is_a_plain_directory_is_a_parent_and_a_template_too(driver: GraphDriver) -> None:
    committed(driver, "other")
    restored = Path(driver.home, "subvolumes", "base")
    restored.mkdir()
    (restored / "file").write_text("x")
    child = committed(driver, "child", "base")
    assert is_subvolume(child)
    carried = driver.create_from_template("copy", LayerRef("base"), None, CreateOptions(idmap=MAPPED))
    assert carried == MAPPED
    copied = Path(driver.mount("copy"), "file")
    assert (copied.read_text(), copied.stat().st_uid) == ("x", 100000)
    driver.remove("base")
    driver.reclaim()
    assert not driver.exists("base")


def test_layers_of_an_additional_store_on_another_file_system_are_parents(
    driver: GraphDriver, quota_directory: str
) -> None:
    additional = opened(quota_directory)
    committed(additional, "base", file="x")
    own = opened(os.path.dirname(driver.home), read_only_homes=(additional.home,))
    assert own.exists("base")
    assert own.list_layers() == []
    assert Path(committed(own, "child", "base"), "file").read_text() == "x"
    with pytest.raises(StoreReadOnly):
        own.remove("base")
    assert additional.exists("base")
