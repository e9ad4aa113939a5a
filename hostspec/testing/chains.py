"""Chains of layers: long ones, what stands in their middle, and what each layer changes far down a path."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.testing.layer_tars import layer_tar, with_layer
from hostspec.testing.layers import Layers, Made
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.samples import MAPPED, SMALL, UNMAPPED
from hostspec.testing.tree import Tree, directory, file

__all__ = ["Chains"]

DEEP: Final = 130
"""More layers than the 127 that Docker allowed, and many a driver with it."""
FAR_DOWN: Final = "/one/two/three/four/five/six"


class Chains(DriverFixtures):
    """What holds for two layers holds for many."""

    @natively
    def test_a_chain_of_130_layers_shows_all_of_them(self, driver: GraphDriver, layers: Layers) -> None:
        depth = min(DEEP, driver.capabilities.max_depth or DEEP)
        tree = Tree({"/bottom": file(b"way down"), "/kept": directory(), "/anew": directory()})
        made = layers.make("layer-0", tree)
        for number in range(1, depth):
            older, tree = tree, _with_layer_number(number, tree)
            made = layers.apply(f"layer-{number}", layer_tar(older, tree), tree, made)
        layers.check(made)

    def test_the_highest_of_many_layers_has_its_own_changes_alone(self, layers: Layers) -> None:
        made = _chain_of(20, layers)

        tree = made.tree.without("/file-3").with_entries({"/file-7": file(b"changed"), "/new": file(b"new")})
        top = layers.make("top", tree, made)

        assert layers.changes(top, made) == tree.changes_from(made.tree)
        with_layer(made.tree, layers.diff(top, made)).check(
            tree.with_root_time(with_layer(made.tree, layers.diff(top, made))["/"].mtime_ns)
        )

    def test_the_highest_of_many_layers_can_be_copied_under_another_map(self, layers: Layers) -> None:
        made = _chain_of(20, layers)

        copy = layers.copy("copy", made, MAPPED)

        layers.check(copy)
        assert layers.changes(copy, made.parent) == layers.changes(made, made.parent)

    def test_every_layer_of_a_chain_can_be_compared_with_every_lower_one(self, layers: Layers) -> None:
        chain = layers.chain()

        for upper, lower in (
            (chain.top, chain.middle),
            (chain.top, chain.bottom),
            (chain.middle, chain.bottom),
        ):
            assert layers.changes(upper, lower) == upper.tree.changes_from(lower.tree)

    @natively
    def test_a_layer_in_the_middle_is_refused_or_missed_by_nobody(
        self, driver: GraphDriver, layers: Layers
    ) -> None:
        chain = layers.chain()

        if users := layers.remove_or_say_who_uses("middle"):
            assert users == ("top",)
            layers.check(chain.middle)
        layers.check(chain.top)

        for layer_id in ("top", "middle", "bottom"):
            driver.remove(layer_id)
        assert list(driver.list_layers()) == []

    @natively
    def test_layers_can_be_made_and_removed_while_others_are_listed(self, driver: GraphDriver) -> None:
        for layer_id in ("one", "two", "three"):
            driver.create(layer_id)
            driver.commit(layer_id)

        for layer_id in driver.list_layers():
            assert driver.exists(layer_id)
            driver.remove(layer_id)
            driver.create(f"instead-of-{layer_id}")
            driver.commit(f"instead-of-{layer_id}")

        assert sorted(driver.list_layers()) == ["instead-of-one", "instead-of-three", "instead-of-two"]

    @pytest.mark.parametrize("idmap", [UNMAPPED, MAPPED], ids=["unmapped", "mapped"])
    def test_a_path_cut_at_any_depth_and_made_again_is_told_both_times(
        self, layers: Layers, idmap: IdMap
    ) -> None:
        paths = [FAR_DOWN[:end] for end, letter in enumerate(f"{FAR_DOWN}/") if letter == "/" and end]
        whole = Tree({**{path: directory() for path in paths}, f"{FAR_DOWN}/file": file(b"far down")})
        below = layers.make("below", whole, idmap=idmap)

        for number, path in enumerate((*paths, f"{FAR_DOWN}/file")):
            cut = layers.make(f"cut-{number}", whole.without(path), below)
            again = layers.make(f"again-{number}", whole, cut)

            assert layers.changes(cut, below) == cut.tree.changes_from(whole)
            assert layers.changes(again, cut) == whole.changes_from(cut.tree)
            assert layers.changes(again, below) == []


def _with_layer_number(number: int, tree: Tree) -> Tree:
    """Return what a layer shows that overwrites a file, adds one, and makes a directory anew."""
    return tree.without("/anew").with_entries(
        {
            "/overwritten": file(b"by layer %d" % number, uid=number),
            f"/kept/file-{number}": file(),
            "/anew": directory(),
            f"/anew/file-{number}": file(),
        }
    )


def _chain_of(length: int, layers: Layers) -> Made:
    made, tree = layers.make("layer-0", SMALL), SMALL
    for number in range(1, length):
        tree = tree.with_entries({f"/file-{number}": file(b"%d" % number, uid=number)})
        made = layers.make(f"layer-{number}", tree, made)
    return made
