"""Every kind of file under every kind of ID map, in every way in which it can come there."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.testing.children import do_in_as_user
from hostspec.testing.id_xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from hostspec.testing.layers import Layers, Made
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.samples import ANOTHER, GAPS, HIGHEST, MAPPED, SCATTERED, SMALL, UNMAPPED
from hostspec.testing.shifting import create_container, need_shifting, read_shifted, reference_to, shifted
from hostspec.testing.tree import (
    MTIME_NS,
    Tree,
    character_device,
    directory,
    fifo,
    file,
    symlink,
)
from hostspec.values import LayerRef

__all__ = ["IdMaps"]

MAPS: Final = {
    "contiguous": MAPPED,
    "several-ranges": ANOTHER,
    "non-contiguous": SCATTERED,
    "gaps": GAPS,
    "highest": HIGHEST,
}
"""In all of them UIDs are mapped unlike GIDs."""

OLD_AND_NEW: Final = [
    *(pytest.param(UNMAPPED, new, id=f"host-to-{name}") for name, new in MAPS.items()),
    *(pytest.param(old, UNMAPPED, id=f"{name}-to-host") for name, old in MAPS.items()),
    *(
        pytest.param(MAPS[old], MAPS[new], id=f"{old}-to-{new}")
        for old, new in pairwise([*MAPS, next(iter(MAPS))])
    ),
]

KINDS: Final = Tree(
    {
        "/": directory(mode=0o1755, uid=3, gid=4, mtime_ns=MTIME_NS + 1),
        "/x": file(b"one character", uid=1, gid=2),
        "/caf\udce9": file(b"not UTF-8", uid=42, gid=43, mtime_ns=999_999_999),
        "/dir": directory(mode=0o2775, uid=1_000, gid=1_001, mtime_ns=MTIME_NS + 7),
        "/dir/set-uid": file(b"set-ID", mode=0o6755, uid=99, gid=99),
        "/dir/access": file(
            b"ACL",
            mode=0o664,
            uid=1_001,
            xattrs={ACL_ACCESS: b"u::rw-,u:1:r--,u:1002:rw-,g::r--,g:43:rw-,m::rw-,o::r--"},
        ),
        "/default": directory(gid=7, xattrs={ACL_DEFAULT: b"u::rwx,u:1001:rwx,g::r-x,g:1:r-x,m::rwx,o::---"}),
        "/cap-2": file(b"2", mode=0o755, uid=5, xattrs={CAPABILITY: b"permitted=0x2000 effective"}),
        "/cap-3": file(b"3", mode=0o755, xattrs={CAPABILITY: b"permitted=0x400 root=1000"}),
        "/noted": file(
            b"notes", gid=8, xattrs={"user.n": b"\x00\xff", "trusted.n": b"t", "security.n": b"s"}
        ),
        "/link": symlink("/dir/set-uid", uid=65_534, gid=65_534),
        "/null": character_device(1, 3, uid=9, gid=10),
        "/pipe": fifo(mode=0o600, uid=11, gid=12),
        "/sparse": file(bytes(1 << 20) + b"end", uid=13, sparse=True),
        "/linked": file(b"three names", uid=14, gid=15),
    },
    links=[("/linked", "/dir/linked", "/default/linked")],
)
"""One of each kind of file, every one with owners of its own."""

FILES: Final = 1_000
DIRECTORIES: Final = ("one", "two", "three")


class IdMaps(DriverFixtures):
    """The same tree for the container, whatever the map and however the files were mapped."""

    @pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
    def test_a_copy_is_the_same_under_its_map_in_every_detail(
        self, layers: Layers, old: IdMap, new: IdMap
    ) -> None:
        template = layers.make("template", KINDS, idmap=old)

        layers.check(layers.copy("copy", template, new))
        layers.check(template)

    @pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
    def test_what_a_copy_inherits_is_the_same_under_its_map_in_every_detail(
        self, layers: Layers, old: IdMap, new: IdMap
    ) -> None:
        parent = layers.make("parent", KINDS, idmap=old)
        tree = KINDS.without("/x").with_entries({"/dir/own": file(b"its own", uid=1, gid=2)})
        template = layers.make("template", tree, parent)

        copy = layers.copy("copy", template, new)

        layers.check(copy)
        assert layers.changes(copy, parent) == tree.changes_from(KINDS)

    @pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
    def test_a_layer_moved_to_another_map_is_the_same_in_every_detail(
        self, layers: Layers, old: IdMap, new: IdMap
    ) -> None:
        parent = layers.make("parent", KINDS, idmap=old)

        moved = layers.make("moved", KINDS, parent, idmap=new)

        layers.check(moved)
        assert layers.changes(moved, parent) == []

    @natively
    @pytest.mark.parametrize("idmap", MAPS.values(), ids=MAPS)
    def test_a_shifted_mount_shows_every_detail_under_the_map(self, layers: Layers, idmap: IdMap) -> None:
        image = layers.make("image", KINDS)

        read_shifted(layers, image, idmap).check(KINDS)
        layers.check(image)

    def test_a_thousand_files_of_three_names_stay_a_thousand_in_a_copy(self, layers: Layers) -> None:
        copy = layers.copy("copy", _made_with_links(layers), ANOTHER)

        with layers.driver.mounted(copy.layer_id) as root:
            _check_links(root, ANOTHER)

    @natively
    def test_a_thousand_files_of_three_names_stay_a_thousand_by_pass_and_by_mount(
        self, layers: Layers
    ) -> None:
        driver = layers.driver
        made = _made_with_links(layers)
        driver.create("moved", made.layer)
        driver.update_idmap("moved", UNMAPPED, ANOTHER)
        with driver.mounted("moved") as root:
            _check_links(root, ANOTHER)

        need_shifting(driver, MAPPED)
        create_container(driver, made, MAPPED)
        with _place_beside(driver) as place, shifted(driver, place, MAPPED):
            _check_links(place, MAPPED)

    @pytest.mark.parametrize("idmap", [MAPPED, GAPS], ids=["contiguous", "gaps"])
    def test_the_diff_of_one_change_is_the_same_bytes_under_every_map(
        self, layers: Layers, idmap: IdMap
    ) -> None:
        below = layers.make("below", SMALL)
        image = layers.make("image", SMALL.with_entries({"/more": file(b"more", uid=1)}), below)
        copy = layers.copy("copy", image, idmap)

        diffs = [_diff_of_one_change(layers, f"on-{parent.layer_id}", parent) for parent in (image, copy)]

        assert diffs[1] == diffs[0]

    @natively
    @pytest.mark.parametrize("idmap", [MAPPED, GAPS], ids=["contiguous", "gaps"])
    def test_the_diff_of_one_change_is_the_same_bytes_in_a_shifted_mount(
        self, layers: Layers, idmap: IdMap
    ) -> None:
        driver = layers.driver
        stored = need_shifting(driver, idmap)
        image = layers.make("image", SMALL)
        unmapped = _diff_of_one_change(layers, "unmapped", image)
        create_container(driver, image, idmap)

        with _place_beside(driver) as place, shifted(driver, place, idmap):
            do_in_as_user(place, *idmap.root(), _change_one_file)

        with driver.diff(reference_to("container", idmap, stored), image.layer) as stream:
            assert stream.read() == unmapped


def _made_with_links(layers: Layers) -> Made:
    """Make a thousand files with a name in each of three directories, by nothing but system calls."""
    driver = layers.driver
    driver.create("linked")
    with driver.mounted("linked", read_only=False) as root:
        for name in DIRECTORIES:
            os.mkdir(f"{root}/{name}")
        for number in range(FILES):
            first, *others = _names_of(root, number)
            os.mknod(first)
            os.chown(first, number, number + 1)
            for other in others:
                os.link(first, other)
    driver.commit("linked")
    return Made(LayerRef("linked"), Tree({}), None)


def _check_links(root: str, idmap: IdMap) -> None:
    for number in range(FILES):
        found = [os.lstat(name) for name in _names_of(root, number)]
        assert len({each.st_ino for each in found}) == 1
        assert found[0].st_nlink == len(DIRECTORIES)
        assert (found[0].st_uid, found[0].st_gid) == idmap.to_host(number, number + 1)
    inodes = {each.st_ino for name in DIRECTORIES for each in map(os.lstat, _listed(f"{root}/{name}"))}
    assert len(inodes) == FILES


def _names_of(root: str, number: int) -> list[str]:
    return [f"{root}/{name}/{number}" for name in DIRECTORIES]


def _listed(directory: str) -> Iterable[str]:
    return (f"{directory}/{name}" for name in os.listdir(directory))


def _diff_of_one_change(layers: Layers, layer_id: str, parent: Made) -> bytes:
    """Return the diff of a container in which its own root has changed one file."""
    layers.driver.create(layer_id, parent.layer)
    with layers.driver.mounted(layer_id, read_only=False) as root:
        do_in_as_user(root, *parent.idmap.root(), _change_one_file)
    layers.driver.commit(layer_id)
    return layers.diff(Made(LayerRef(layer_id, parent.idmap), parent.tree, parent), parent)


def _change_one_file() -> None:
    with open("a/new", "wb") as opened:
        opened.write(b"written by the container's root")
    os.chmod("a/new", 0o640)
    for path in ("a/new", "a"):
        os.utime(path, ns=(MTIME_NS, MTIME_NS))


def _place_beside(driver: GraphDriver) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=os.path.dirname(driver.home))
