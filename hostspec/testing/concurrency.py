"""Several threads and processes that use one home at once."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate
from hostspec.testing.children import do_at_once
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layers import Layers, Made
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.requirements import skip_by_capability
from hostspec.testing.samples import ANOTHER, MAPPED, SMALL
from hostspec.testing.tree import file

__all__ = ["Concurrency"]

PROCESSES: Final = 3


class Concurrency(DriverFixtures):
    """Nobody waits for another's layer, and nobody clears away what another is making."""

    def test_processes_that_make_copy_and_remove_do_not_disturb_each_other(
        self, layers: Layers, open_driver_at: DriverOpener
    ) -> None:
        below = layers.make("below", SMALL)
        template = layers.make("template", SMALL.with_entries({"/new": file(b"new", uid=1)}), below)

        def work(number: int) -> None:
            mine = Layers(open_driver_at.again())
            for turn in range(2):
                child = mine.make(f"child-{number}-{turn}", SMALL.without("/b"), below)
                copy = mine.copy(f"copy-{number}-{turn}", template, (MAPPED, ANOTHER)[turn])
                mine.driver.reclaim()
                mine.check(child)
                mine.check(copy)
            mine.driver.remove(f"child-{number}-0")
            mine.driver.remove(f"copy-{number}-0")
            mine.driver.reclaim()

        do_at_once([lambda number=number: work(number) for number in range(PROCESSES)])  # type: ignore[misc]

        left = [f"{kind}-{number}-1" for kind in ("child", "copy") for number in range(PROCESSES)]
        assert sorted(layers.driver.list_layers()) == sorted(["below", "template", *left])
        for each in (below, template):
            layers.check(each)
        layers.check(Made(template.layer._replace(layer_id="copy-0-1", idmap=ANOTHER), template.tree, below))

    @natively
    def test_of_those_who_stage_the_same_id_one_commits_it(
        self, driver: GraphDriver, layers: Layers, open_driver_at: DriverOpener
    ) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        below = layers.make("below", SMALL)
        others = [open_driver_at.again() for _ in range(PROCESSES)]

        for other in others:
            other.create("wanted", below.layer)
        refused = 0
        for other in others:
            try:
                other.commit("wanted")
            except Duplicate:
                refused += 1
                other.remove("wanted")

        assert refused == PROCESSES - 1
        layers.check(Made(below.layer._replace(layer_id="wanted"), SMALL, below))

    def test_one_layer_can_be_read_by_several_threads(self, layers: Layers) -> None:
        top = layers.chain(parent_map=MAPPED).top

        def look(number: int) -> object:
            layers.check(top)
            return layers.changes(top, top.parent) if number % 2 else layers.diff(top, top.parent)

        # pytest rewrites what is imported now, which CPython 3.11 cannot do in several threads at once.
        look(0)
        look(1)
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(look, range(8)))

        assert found[::2] == [found[0]] * 4
        assert found[1::2] == [found[1]] * 4

    def test_reclaim_leaves_alone_what_other_threads_are_making(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)

        def make_and_remove(number: int) -> Made:
            layers.make(f"gone-{number}", SMALL, below)
            layers.driver.remove(f"gone-{number}")
            layers.driver.reclaim()
            return layers.make(f"kept-{number}", SMALL, below)

        with ThreadPoolExecutor(4) as threads:
            kept = list(threads.map(make_and_remove, range(6)))

        for each in kept:
            layers.check(each)
