"""Homes of additional stores: their layers are parents and templates, and are never written."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import pytest

from hostspec.errors import StoreReadOnly
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layers import Chain, Layers
from hostspec.testing.on_disk import count_files
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.requirements import skip_by_probe
from hostspec.testing.samples import MAPPED
from hostspec.testing.tree import file

__all__ = ["AdditionalStores"]


class AdditionalStores(DriverFixtures):
    """What a driver promises that looks into the homes which its factory gets as ``read_only_homes``."""

    @pytest.fixture
    def theirs(self, layers: Layers) -> Chain:
        """Three layers in the home of an additional store."""
        return layers.chain()

    @pytest.fixture
    def ours(self, theirs: Chain, layers: Layers, open_driver_at: DriverOpener) -> Layers:
        """Makes layers in a home of its own, on those of the additional store."""
        driver = open_driver_at.beside(layers.driver)
        if not driver.exists(theirs.top.layer_id):
            skip_by_probe("the driver does not look into the homes of additional stores")
        return Layers(driver)

    def test_a_layer_of_an_additional_store_is_shown_and_not_listed(
        self, ours: Layers, theirs: Chain
    ) -> None:
        assert list(ours.driver.list_layers()) == []
        ours.check(theirs.top)
        assert ours.changes(theirs.top, theirs.middle) == theirs.top.tree.changes_from(theirs.middle.tree)

    def test_a_layer_of_an_additional_store_can_be_built_on(self, ours: Layers, theirs: Chain) -> None:
        tree = theirs.top.tree.without("/z").with_entries({"/opt/new": file(b"new", uid=1_000)})

        child = ours.make("child", tree, theirs.top)

        ours.check(child)
        assert ours.changes(child, theirs.top) == tree.changes_from(theirs.top.tree)

    def test_a_layer_of_an_additional_store_can_be_a_template(self, ours: Layers, theirs: Chain) -> None:
        copy = ours.copy("copy", theirs.top, MAPPED)

        ours.check(copy)
        assert list(ours.driver.list_layers()) == ["copy"]
        assert ours.changes(copy, theirs.middle) == theirs.top.tree.changes_from(theirs.middle.tree)

    def test_an_additional_store_is_never_written(self, ours: Layers, theirs: Chain, layers: Layers) -> None:
        before, files = layers.times(theirs.top), count_files(layers.driver.home)

        ours.copy("copy", theirs.top, MAPPED)
        with pytest.raises(StoreReadOnly):
            ours.driver.remove(theirs.top.layer_id)
        ours.driver.reclaim()

        after = layers.times(theirs.top)
        assert [path for path in after if after[path].is_touched_since(before[path])] == []
        assert count_files(layers.driver.home) == files
        assert sorted(layers.driver.list_layers()) == ["bottom", "middle", "top"]
