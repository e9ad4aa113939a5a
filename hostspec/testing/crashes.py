"""Processes that are killed: whatever they were doing, the next one finds all or nothing of it."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final

import pytest

from hostspec.testing.children import killed_before_step
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layer_tars import layer_tar
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import count_files
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.samples import MAPPED, SMALL
from hostspec.testing.tree import directory, file

__all__ = ["Crashes"]

Make = Callable[[Layers, Made, Made], Made]
"""Makes the layer ``made`` on a parent, or like a template that stands on it; says what it should be."""

TREE: Final = SMALL.without("/link").with_entries(
    {"/a/new": file(b"new", uid=1_000), "/d": directory(mode=0o700, uid=1), "/b": file(b"changed", gid=7)}
)
"""What the template shows: something added, changed and deleted."""


def _create(layers: Layers, parent: Made, _template: Made) -> Made:
    layers.driver.create("made", parent.layer)
    layers.driver.commit("made")
    return Made(parent.layer._replace(layer_id="made"), parent.tree, parent)


def _copy(layers: Layers, _parent: Made, template: Made) -> Made:
    return layers.copy("made", template, MAPPED)


def _apply(layers: Layers, parent: Made, template: Made) -> Made:
    return layers.apply("made", layer_tar(parent.tree, template.tree), template.tree, parent)


class Crashes(DriverFixtures):
    """SIGKILL before every single change that an operation makes on disk, and then a new process."""

    @natively
    def test_a_layer_whose_creator_is_killed_is_whole_or_not_there(self, crash_site: CrashSite) -> None:
        crash_site.kill_at_every_step_of(_create)

    @pytest.mark.parametrize(
        "make", [pytest.param(_copy, id="create_from_template"), pytest.param(_apply, id="apply")]
    )
    def test_a_layer_whose_maker_is_killed_is_whole_or_not_there(
        self, crash_site: CrashSite, make: Make
    ) -> None:
        crash_site.kill_at_every_step_of(make)

    @natively
    def test_a_layer_whose_remover_is_killed_is_whole_or_gone(self, crash_site: CrashSite) -> None:
        crash_site.kill_at_every_step_of_removal()

    @pytest.fixture
    def crash_site(self, layers: Layers, open_driver_at: DriverOpener) -> CrashSite:
        """A template on a parent, and processes that die beside them."""
        return CrashSite(layers, open_driver_at)


class CrashSite:
    """Two layers that are to survive, a third one that processes make or remove until they are killed.

    Every look afterwards is that of a new process: a driver opened anew, which first reclaims.
    """

    def __init__(self, layers: Layers, reopen: DriverOpener) -> None:
        """Make the two layers; the driver of ``layers`` is closed with that."""
        self._reopen = reopen
        self._parent = layers.make("below", SMALL)
        self._template = layers.make("template", TREE, self._parent)
        self._files_without_it = self._removed_and_counted(layers)

    def kill_at_every_step_of(self, make: Make) -> None:
        """Kill who makes a layer, once at each step; then let one finish."""
        first = self._survivor()
        made = make(first, self._parent, self._template)
        assert self._removed_and_counted(first) == self._files_without_it

        def work() -> None:
            make(Layers(self._reopen.again()), self._parent, self._template)

        for step in count(1):
            killed = killed_before_step(step, work)
            survivor = self._survivor()
            if killed and not survivor.driver.capabilities.stages_layers:
                # Recorded as incomplete before it was begun, so the host removes it, however much is there.
                survivor.driver.remove("made")
            if there := self._is_there(survivor):
                survivor.check(made)
            assert self._removed_and_counted(survivor) == self._files_without_it
            if not killed:
                assert there, "a layer was lost after it had been committed"
                break
        self._check_the_others()

    def kill_at_every_step_of_removal(self) -> None:
        """Kill who removes a layer, once at each step; then let one finish."""

        def remove() -> None:
            driver = self._reopen.again()
            driver.remove("made")
            driver.reclaim()

        for step in count(1):
            before = self._survivor()
            made = _copy(before, self._parent, self._template)
            before.driver.cleanup()
            killed = killed_before_step(step, remove)
            survivor = self._survivor()
            if there := self._is_there(survivor):
                survivor.check(made)
            assert self._removed_and_counted(survivor) == self._files_without_it
            if not killed:
                assert not there, "a layer was there after it had been removed"
                break
        self._check_the_others()

    def _survivor(self) -> Layers:
        driver = self._reopen.again()
        driver.reclaim()
        return Layers(driver)

    def _is_there(self, survivor: Layers) -> bool:
        there = survivor.driver.exists("made")
        expected = ["below", "made", "template"] if there else ["below", "template"]
        assert sorted(survivor.driver.list_layers()) == expected
        return there

    def _removed_and_counted(self, layers: Layers) -> int:
        """Remove what was made, close the driver, and return how many files are left in its home."""
        # Again, if it was removed half-way: that may be repeated.
        layers.driver.remove("made")
        layers.driver.reclaim()
        layers.driver.cleanup()
        return count_files(layers.driver.home)

    def _check_the_others(self) -> None:
        survivor = self._survivor()
        for each in (self._parent, self._template):
            survivor.check(each)
        survivor.driver.cleanup()
