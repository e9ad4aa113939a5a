"""Deletions: what a layer takes away stays away, and nothing else does."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from hostspec.testing.layer_tars import layer_tar, member_names
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import read_tree
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import MAPPED
from hostspec.testing.tree import Kind, Tree, directory, file, symlink

__all__ = ["Whiteouts"]

BELOW = Tree(
    {
        "/file": file(b"file"),
        "/dir": directory(uid=1),
        "/dir/one": file(b"one"),
        "/dir/two": file(b"two", uid=2),
        "/dir/sub": directory(),
        "/dir/sub/three": file(b"three"),
        "/empty": directory(),
        "/link": symlink("dir"),
    }
)


class Whiteouts(DriverFixtures):
    """Deletions, made through a mount and by the whiteouts of a layer tar."""

    @pytest.fixture(params=["written", "unpacked"])
    def above(self, request: pytest.FixtureRequest, layers: Layers) -> Callable[..., Made]:
        """Makes a layer on ``BELOW``: through a mount, or from a layer tar."""

        def above(tree: Tree, *, anew: frozenset[str] = frozenset()) -> Made:
            below = layers.make("below", BELOW, idmap=MAPPED)
            if request.param == "written":
                return layers.make("above", tree, below, recreated=anew)
            packed = layer_tar(
                BELOW, tree, opaque={path for path in anew if tree[path].kind is Kind.DIRECTORY}
            )
            return layers.apply("above", packed, tree, below)

        return above

    def test_a_deleted_file_is_gone(self, layers: Layers, above: Callable[..., Made]) -> None:
        layers.check(above(BELOW.without("/file", "/dir/two")))

    def test_a_deleted_directory_is_gone_with_all_in_it(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        layers.check(above(BELOW.without("/dir", "/empty")))

    def test_a_deleted_link_is_gone_and_what_it_led_to_is_not(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        layers.check(above(BELOW.without("/link")))

    def test_a_deleted_file_stays_in_the_layer_below(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        made = above(BELOW.without("/file", "/dir"))

        assert made.parent is not None
        layers.check(made.parent)

    def test_a_file_takes_the_place_of_a_directory(self, layers: Layers, above: Callable[..., Made]) -> None:
        layers.check(above(BELOW.with_entries({"/dir": file(b"a file now")})))

    def test_a_directory_takes_the_place_of_a_file(self, layers: Layers, above: Callable[..., Made]) -> None:
        layers.check(above(BELOW.with_entries({"/file": directory(uid=3), "/file/in": file(b"in")})))

    def test_a_directory_takes_the_place_of_a_link_to_one(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        made = above(BELOW.with_entries({"/link": directory(), "/link/in": file(b"in")}))

        layers.check(made)

    def test_a_directory_made_anew_shows_nothing_of_the_old_one(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        tree = BELOW.without("/dir").with_entries({"/dir": directory(uid=5), "/dir/new": file(b"new")})

        layers.check(above(tree, anew=frozenset({"/dir"})))

    def test_an_empty_directory_made_anew_is_empty(self, layers: Layers, above: Callable[..., Made]) -> None:
        tree = BELOW.without("/dir").with_entries({"/dir": directory(uid=1)})

        layers.check(above(tree, anew=frozenset({"/dir"})))

    def test_a_file_made_anew_is_the_new_one(self, layers: Layers, above: Callable[..., Made]) -> None:
        tree = BELOW.with_entries({"/dir/one": file(b"made anew", uid=9)})

        layers.check(above(tree, anew=frozenset({"/dir/one"})))

    def test_the_next_layer_can_bring_back_what_was_deleted(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        made = above(BELOW.without("/dir", "/file"))

        layers.check(layers.make("again", BELOW, made))
        layers.check(made)

    def test_a_deletion_is_seen_through_further_layers(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        made = above(BELOW.without("/dir/one"))
        further = made.tree.with_entries({"/dir/sub/new": file(b"new")})

        layers.check(layers.make("further", further, made))

    def test_each_deletion_is_one_whiteout_in_the_diff(
        self, layers: Layers, above: Callable[..., Made]
    ) -> None:
        made = above(BELOW.without("/dir/sub", "/dir/two", "/file"))

        names = [name for name in member_names(layers.diff(made, made.parent)) if ".wh." in name]
        assert sorted(names) == [".wh.file", "dir/.wh.sub", "dir/.wh.two"]

    def test_whiteouts_survive_a_copy(self, layers: Layers, above: Callable[..., Made]) -> None:
        tree = BELOW.without("/file", "/dir").with_entries({"/dir": directory(), "/dir/new": file(b"new")})
        template = above(tree, anew=frozenset({"/dir"}))

        copy = layers.copy("copy", template, MAPPED)

        layers.check(copy)
        assert layers.changes(copy, template.parent) == layers.changes(template, template.parent)

    def test_a_renamed_file_is_gone_from_its_old_place(self, layers: Layers) -> None:
        self._rename(layers, "/dir/one", "/renamed")

    def test_a_renamed_directory_is_gone_from_its_old_place(self, layers: Layers) -> None:
        self._rename(layers, "/dir", "/renamed")

    def test_a_file_renamed_over_another_takes_its_place(self, layers: Layers) -> None:
        self._rename(layers, "/dir/one", "/file")

    def _rename(self, layers: Layers, old: str, new: str) -> None:
        below = layers.make("below", BELOW)
        driver = layers.driver
        driver.create("renamed", below.layer)
        with driver.mounted("renamed", read_only=False) as root:
            # As mv(1): copies and deletes where a file system renames no directories of other layers.
            shutil.move(root + old, root + new)
        driver.commit("renamed")

        with driver.mounted("renamed") as root:
            found = read_tree(root, below.idmap)
            assert os.path.lexists(root + old) is False
        expected = {path: entry for path, entry in BELOW.items() if not f"{path}/".startswith(f"{old}/")}
        expected |= {
            path.replace(old, new, 1): entry
            for path, entry in BELOW.items()
            if f"{path}/".startswith(f"{old}/")
        }
        # Moving changes the times of the directories that it happens in, and copying some owners.
        assert set(found) == set(expected)
        assert all(found[path].content == entry.content for path, entry in expected.items())
        layers.check(below)
