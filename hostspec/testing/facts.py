"""What a driver says about itself and its layers."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from hostspec.driver import GraphDriver
from hostspec.errors import OperationNotSupported
from hostspec.hookspecs import CONTRACT_VERSION
from hostspec.testing.layers import Layers
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import SMALL
from hostspec.testing.tree import Tree, file

__all__ = ["Facts"]


class Facts(DriverFixtures):
    """``capabilities``, ``status``, ``metadata``, ``disk_usage``, ``dedup``."""

    def test_the_contract_version_is_one_that_exists(self, driver: GraphDriver) -> None:
        assert 1 <= driver.capabilities.contract <= CONTRACT_VERSION

    def test_status_is_pairs_of_text(self, driver: GraphDriver) -> None:
        driver.create("layer")

        _check_pairs(driver.status())

    def test_metadata_is_pairs_of_text(self, driver: GraphDriver) -> None:
        driver.create("layer")
        driver.commit("layer")

        _check_pairs(driver.metadata("layer"))

    def test_disk_usage_grows_with_what_is_written(self, driver: GraphDriver, layers: Layers) -> None:
        below = layers.make("below", SMALL)
        little = layers.make("little", SMALL, below)
        content = os.urandom(1 << 20)
        much = layers.make("much", SMALL.with_entries({"/much": file(content)}), below)

        before, after = driver.disk_usage(little.layer_id), driver.disk_usage(much.layer_id)

        grown = after.exclusive_bytes + after.shared_bytes - before.exclusive_bytes - before.shared_bytes
        assert len(content) <= grown < 2 * len(content)
        # Not more of them: a driver may keep a whole layer in one file.
        assert after.inodes >= before.inodes >= 1
        for each in (before, after):
            if each.shared_extents is not None:
                assert sum(end - start for start, end in each.shared_extents.runs) == each.shared_bytes
        # Where each layer is a file system of its own, its size is always a limit.
        assert after.limit_bytes is None or driver.capabilities.limits_size

    def test_disk_usage_counts_a_file_of_several_names_once(
        self, driver: GraphDriver, layers: Layers
    ) -> None:
        content = os.urandom(1 << 20)
        tree = Tree({"/first": file(content)}, links=[("/first", "/second", "/third")])
        below = layers.make("below", Tree({}))
        made = layers.make("made", tree, below)

        before, after = driver.disk_usage(below.layer_id), driver.disk_usage(made.layer_id)

        grown = after.exclusive_bytes + after.shared_bytes - before.exclusive_bytes - before.shared_bytes
        assert len(content) <= grown < 2 * len(content)

    def test_dedup_saves_bytes_or_is_refused(self, driver: GraphDriver, layers: Layers) -> None:
        made = layers.make("layer", SMALL)

        with suppress(OperationNotSupported):
            assert driver.dedup([made.layer_id]) >= 0

        layers.check(made)


def _check_pairs(pairs: Sequence[tuple[object, object]]) -> None:
    """Fail unless these are names and values, for people to read."""
    assert [(type(name), type(value)) for name, value in pairs] == [(str, str)] * len(pairs)
    assert all(name for name, _ in pairs)
