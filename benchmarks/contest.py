"""One scenario: all contestants in turn, round after round, so that what disturbs one disturbs all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

from benchmarks.command import CommandSide
from benchmarks.crowd import fill_store
from benchmarks.ours import InProcess, our_side
from benchmarks.peer import peer_side
from benchmarks.places import Place
from benchmarks.record import Label, Record, Timer
from benchmarks.side import MAP_SIZE, PEER, STRATEGIES, Side
from benchmarks.subjects import Subject
from benchmarks.work import (
    CREW_WORKS,
    DRIVER_WORKS,
    LAYER_WORKS,
    MAPPED_WORKS,
    SMALL_WORKS,
    Scenario,
    crew_cycle,
    driver_cycle,
    layer_cycle,
    mapped_cycle,
    small_cycle,
    way_of,
)
from hostspec.store.configuration.policy import Strategy

__all__ = ["Contest"]

FIRST_HOST_ID = 1 << 20
PEER_ALWAYS_SHIFTS = "the peer shifts here even when told not to, so it makes no copy to compare with"


class Base(NamedTuple):
    """What stays in a side's store all the time."""

    layer: str
    """ID of the imported layer; ``""`` where nothing large is measured."""
    image: str
    """ID of an image of that layer."""
    empty_image: str
    """ID of an image of another layer, in which there is nothing."""


class Contestant(NamedTuple):
    """A side, one way of mapping, and the rows that its samples belong to."""

    side: Side
    strategy: Strategy
    ways: tuple[str, ...]


class Sides(NamedTuple):
    """The stores of one scenario, and who drives them."""

    in_process: InProcess
    command: CommandSide
    peer: CommandSide | None
    peer_not_shifting: CommandSide | None
    """The same store as ``peer``."""

    @property
    def stores(self) -> list[Side]:
        """One for each store."""
        return [side for side in (self.in_process, self.command, self.peer) if side is not None]


class Contest:
    """Runs the cycles of one scenario."""

    def __init__(self, scenario: Scenario, place: Place, record: Record, *, repeat: int) -> None:
        """Nothing is opened yet.

        Args:
            scenario: What is measured.
            place: Where.
            record: Where the samples go.
            repeat: How many are taken of each.
        """
        self._scenario = scenario
        self._place = place
        self._record = record
        self._repeat = repeat
        self._host_ids = count(FIRST_HOST_ID, MAP_SIZE)
        self._bases: dict[str, Base] = {}

    def run(self, subject: Subject, peer: str | None) -> None:
        """Measure whatever is wanted.

        Args:
            subject: What is imported.
            peer: Path of the peer's command, or ``None``.
        """
        with self._opened(peer) as sides:
            stores = [side for side in sides.stores if self._prepare(side, subject)]
            name = self._scenario.name
            plain = [Contestant(side, "auto", (name,)) for side in stores]
            if not self._scenario.crowd:
                self._rounds(LAYER_WORKS, plain, lambda timer, _: layer_cycle(timer, subject))
                self._rounds(MAPPED_WORKS, self._mapped_contestants(sides), self._map)
                self._rounds(DRIVER_WORKS, self._driver_contestants(sides), self._copy)
            if self._scenario.crew:
                self._rounds(CREW_WORKS, plain, self._crew)
            if self._scenario.crowd or not name:
                self._rounds(SMALL_WORKS, plain, self._small)

    @contextmanager
    def _opened(self, peer: str | None) -> Iterator[Sides]:
        directory, run = self._place.directory, self._place.run
        driver, options = self._scenario.driver, self._scenario.options

        def where(name: str) -> tuple[str, str]:
            store = os.path.join(directory, name)
            if self._scenario.crowd and not os.path.exists(store):
                fill_store(os.path.join(store, "graph"), self._scenario.crowd)
            return store, os.path.join(run, f"{os.path.basename(directory)}-{name}")

        sides = Sides(
            InProcess(*where("in-process"), driver, options),
            our_side(*where("command"), driver, options),
            peer_side(peer, *where("peer"), driver, options) if peer else None,
            peer_side(peer, *where("peer"), driver, options, shifting=False) if peer else None,
        )
        try:
            yield sides
        finally:
            for side in sides.stores:
                side.close()

    def _prepare(self, side: Side, subject: Subject) -> bool:
        """Give a side the image that stays, which also warms the caches; tell whether that worked."""
        with self._failing(side, "import") as outcome:
            layer = "" if self._scenario.crowd else side.import_layer(subject.tar)
            image = side.create_image(layer) if layer else ""
            self._bases[side.column] = Base(layer, image, side.create_image(side.create_layer()))
        return not outcome

    def _possible(self, sides: Sides) -> list[Strategy]:
        """Return the strategies that our driver has here, and note why it lacks the others."""
        found = []
        for strategy, reason in sides.in_process.strategies().items():
            if reason:
                self._record.skip(f"{strategy}: {self._where}", reason)
            else:
                found.append(strategy)
        return found

    def _mapped_contestants(self, sides: Sides) -> list[Contestant]:
        """Pair each strategy of ours with whatever the peer does instead."""
        if not self._any_wanted(MAPPED_WORKS, list(map(self._way, STRATEGIES))):
            return []
        possible = self._possible(sides)
        contestants = [
            Contestant(side, strategy, (self._way(strategy),))
            for strategy in possible
            for side in (sides.in_process, sides.command)
            if side.column in self._bases
        ]
        if sides.peer is None or sides.peer_not_shifting is None or PEER not in self._bases:
            return contestants
        copies = [each for each in possible if each != "shift"]
        if self._makes_copy(sides.peer):
            return [*contestants, Contestant(sides.peer, "auto", tuple(map(self._way, possible)))]
        contestants.append(Contestant(sides.peer, "auto", (self._way("shift"),)))
        if self._makes_copy(sides.peer_not_shifting):
            return [*contestants, Contestant(sides.peer_not_shifting, "auto", tuple(map(self._way, copies)))]
        for strategy in copies:
            self._record.skip(f"{PEER}, {strategy}: {self._where}", PEER_ALWAYS_SHIFTS)
        return contestants

    def _driver_contestants(self, sides: Sides) -> list[Contestant]:
        """Our driver's own way to copy a layer, and the fallback; the peer's cannot be called by itself."""
        if not self._any_wanted(DRIVER_WORKS, list(map(self._way, STRATEGIES))):
            return []
        side = sides.in_process
        return [
            Contestant(side, strategy, (self._way(strategy),))
            for strategy in self._possible(sides)
            if strategy != "shift" and side.column in self._bases
        ]

    def _makes_copy(self, side: Side) -> bool:
        """Let a side make a container with a map, and look whether its image has a copy then."""
        image = side.create_image(self._bases[side.column].layer)
        container = side.create_container(image, next(self._host_ids))
        made = side.top_layers(image) > 1
        side.delete_container(container)
        side.delete_image(image)
        return made

    def _map(self, timer: Timer, contestant: Contestant) -> None:
        base = self._bases[contestant.side.column]
        mapped_cycle(timer, base.layer, next(self._host_ids), contestant.strategy)

    def _copy(self, timer: Timer, contestant: Contestant) -> None:
        if isinstance(contestant.side, InProcess):
            base = self._bases[contestant.side.column]
            driver_cycle(timer, contestant.side, base.layer, contestant.strategy)

    def _crew(self, timer: Timer, contestant: Contestant) -> None:
        crew_cycle(timer, self._bases[contestant.side.column].image)

    def _small(self, timer: Timer, contestant: Contestant) -> None:
        small_cycle(timer, self._bases[contestant.side.column].empty_image)

    def _rounds(
        self,
        works: Sequence[str],
        contestants: Sequence[Contestant],
        cycle: Callable[[Timer, Contestant], None],
    ) -> None:
        """Let all contestants go through a cycle, once to warm up and then as often as is wanted."""
        left = [each for each in contestants if self._any_wanted(works, each.ways)]
        for turn in range(self._repeat + 1):
            if left and sys.stderr.isatty():
                print(f"{self._where}: {works[0]} …, {turn} of {self._repeat}", file=sys.stderr)
            # Whoever comes first finds other caches than the last: take turns.
            order = [*left[turn % len(left) :], *left[: turn % len(left)]] if left else []
            for each in order:
                timer = Timer(
                    self._record,
                    each.side,
                    self._scenario.driver,
                    self._place.filesystem,
                    self._place.directory,
                    each.ways,
                    warm_up=turn == 0,
                )
                with self._failing(each.side, " ".join(filter(None, (works[0], *each.ways)))) as outcome:
                    cycle(timer, each)
                if outcome:
                    left.remove(each)

    @contextmanager
    def _failing(self, side: Side, what: str) -> Iterator[list[str]]:
        """Note what one contestant cannot do, and go on with the others.

        Yields:
            A list that holds the reason afterwards, or is empty.
        """
        outcome: list[str] = []
        try:
            yield outcome
        except Exception as error:  # noqa: BLE001 - even a bug of ours must not cost the other figures
            outcome.append(f"{type(error).__name__}: {error}")
            self._record.skip(f"{side.column}, {what}: {self._where}", outcome[0])

    def _any_wanted(self, works: Sequence[str], ways: Sequence[str]) -> bool:
        driver, filesystem = self._scenario.driver, self._place.filesystem
        return any(self._record.wants(Label(work, driver, filesystem, way)) for work in works for way in ways)

    def _way(self, strategy: str) -> str:
        return way_of(strategy, self._scenario)

    @property
    def _where(self) -> str:
        name = f", {self._scenario.name}" if self._scenario.name else ""
        return f"{self._scenario.driver} on {self._place.filesystem}{name}"
