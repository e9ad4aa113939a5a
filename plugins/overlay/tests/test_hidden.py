"""What a layer hides need not be in the map when the layer's own map changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.driver import GraphDriver
from hostspec.errors import IdNotMapped
from hostspec.idmap import IdMap
from hostspec_overlay.hidden import hidden_by

from .conftest import AddLayer, OpenOverlay

NARROW = IdMap.parse(["0:200000:1000"])
OUTSIDE = 5000
FILES = {"a/b/kept": "k", "a/b/gone": "g", "a/beside": "x", "top": "t", "old/deep/file": "f"}


@pytest.fixture
def driver(ext4_directory: str, open_overlay: OpenOverlay) -> GraphDriver:
    """A driver that notes where directories were renamed from."""
    return open_overlay(ext4_directory, ("mountopt", "redirect_dir=on"))


def move_and_delete(root: str) -> None:
    os.rename(f"{root}/a/b", f"{root}/c")
    os.unlink(f"{root}/c/gone")
    shutil.rmtree(f"{root}/a")


def move_into_a_new_directory(root: str) -> None:
    os.mkdir(f"{root}/new")
    os.rename(f"{root}/a", f"{root}/new/a")
    shutil.rmtree(f"{root}/new/a/b")


def replace_what_was_moved(root: str) -> None:
    os.rename(f"{root}/a", f"{root}/moved")
    os.mkdir(f"{root}/a")
    with open(f"{root}/a/beside", "w", encoding="utf-8") as file:
        file.write("another")


def replace_by_a_link(root: str) -> None:
    shutil.rmtree(f"{root}/old")
    os.symlink("a", f"{root}/old")


@pytest.mark.parametrize(
    ("change", "hidden", "visible"),
    [
        (move_and_delete, {"/a/b/gone", "/a/beside"}, {"/a/b", "/a/b/kept", "/top"}),
        (move_into_a_new_directory, {"/a/b"}, {"/a", "/a/beside"}),
        (replace_what_was_moved, set(), {"/a", "/a/beside", "/a/b", "/a/b/kept"}),
        (replace_by_a_link, {"/old"}, {"/a", "/a/beside"}),
    ],
)
def test_what_shows_at_no_path_is_hidden(
    change: Callable[[str], None],
    hidden: set[str],
    visible: set[str],
    driver: GraphDriver,
    add_layer: AddLayer,
) -> None:
    driver.create("layer", add_layer(driver, "base", None, FILES))
    with driver.mounted("layer", read_only=False) as root:
        change(root)
    driver.commit("layer")

    found = hidden_by(f"{driver.home}/layer/diff", WhiteoutForm.OVERLAY)
    assert {path for path in hidden | visible if path in found} == hidden


def test_files_hidden_by_a_renamed_directory_need_not_be_in_the_map(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(driver, "base", None, FILES)
    for name in ("a/b/gone", "a/beside"):
        os.chown(f"{driver.home}/base/diff/{name}", OUTSIDE, OUTSIDE)
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        move_and_delete(root)

    driver.update_idmap("layer", IdMap(), NARROW)
    driver.commit("layer")

    with driver.mounted("layer") as root:
        assert sorted(os.listdir(root)) == ["c", "old", "top"]
        assert os.listdir(f"{root}/c") == ["kept"]
        for name in ("c", "c/kept", "old/deep/file", "top"):
            assert os.stat(f"{root}/{name}").st_uid == 200_000


def test_what_shows_at_another_path_must_be_in_the_map(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base", None, FILES)
    os.chown(f"{driver.home}/base/diff/a/b/kept", OUTSIDE, OUTSIDE)
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        move_and_delete(root)

    with pytest.raises(IdNotMapped, match="5000"):
        driver.update_idmap("layer", IdMap(), NARROW)
