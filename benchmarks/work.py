"""The work that is measured: scenarios, and the cycles of steps that each contestant goes through."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

from benchmarks.command import CommandSide
from benchmarks.crowd import CROWD_DRIVER
from benchmarks.ours import InProcess
from benchmarks.record import Label, Timer
from benchmarks.side import STRATEGIES
from benchmarks.subjects import Subject
from hostspec.store.configuration.policy import Strategy

__all__ = [
    "CREW_WORKS",
    "DRIVER_WORKS",
    "LAYER_WORKS",
    "MAPPED_WORKS",
    "SCENARIOS",
    "SMALL_WORKS",
    "Scenario",
    "crew_cycle",
    "driver_cycle",
    "labels_of",
    "layer_cycle",
    "mapped_cycle",
    "small_cycle",
    "way_of",
]

SMALL_ROUNDS = 3
"""How often the small operations are done while the others are done once."""

LAYER_WORKS = ("import tar", "diff", "delete layer", "import tar.gz")
MAPPED_WORKS = ("first container", "mount", "next container", "delete container", "delete image")
DRIVER_WORKS = ("copy in driver",)
CREW_WORKS = ("each of 100 containers", "each of 32 at once")
SMALL_WORKS = ("layers", "images", "create-layer", "create-container", "--help")

CREW_SIZE = 100
AT_ONCE = 32
CROWD = 10_000
"""Layers that a full store has before it is measured."""


class Scenario(NamedTuple):
    """A driver on a file system, with options."""

    driver: str
    """The driver's name."""
    filesystem: str
    """Kind of the file system, which is made for it on a loop file."""
    options: tuple[str, ...] = ()
    """Storage options, the same on both sides."""
    name: str = ""
    """What the options are called in the report."""
    crew: bool = False
    """Whether many containers of one image are made, too."""
    crowd: int = 0
    """How many layers the store has beforehand; if any, only small operations are measured."""


METACOPY = ("overlay.mountopt=nodev,metacopy=on",)
PLAIN = ("overlay.mountopt=nodev",)

SCENARIOS = (
    Scenario("overlay", "ext4", PLAIN, crew=True),
    Scenario("overlay", "ext4", METACOPY, "metacopy"),
    Scenario("overlay", "xfs", PLAIN, crew=True),
    Scenario("overlay", "xfs", METACOPY, "metacopy"),
    Scenario("btrfs", "btrfs", crew=True),
    Scenario("vfs", "ext4"),
    Scenario("vfs", "xfs"),
    Scenario(CROWD_DRIVER, "ext4", name=f"{CROWD:,} layers", crowd=CROWD),
)


def labels_of(scenario: Scenario) -> Iterator[Label]:
    """Yield the label of every row that a scenario may have."""
    small = bool(scenario.crowd) or not scenario.name
    for works, ways, measured in (
        (LAYER_WORKS, ("",), not scenario.crowd),
        (MAPPED_WORKS, STRATEGIES, not scenario.crowd),
        (DRIVER_WORKS, STRATEGIES[1:], not scenario.crowd),
        (CREW_WORKS, ("",), scenario.crew),
        (SMALL_WORKS, ("",), small),
    ):
        if not measured:
            continue
        for way, work in product(ways, works):
            yield Label(work, scenario.driver, scenario.filesystem, way_of(way, scenario))


def way_of(strategy: str, scenario: Scenario) -> str:
    """Return what a report says of a strategy, ``""`` for none, under a scenario's options."""
    return " ".join(filter(None, (strategy, scenario.name)))


def layer_cycle(timer: Timer, subject: Subject) -> None:
    """Import a layer, read it back, delete it, and import it compressed."""
    side = timer.side
    layer = timer("import tar", lambda: side.import_layer(subject.tar))
    timer("diff", lambda: side.diff(layer))
    timer("delete layer", lambda: side.delete_layer(layer))
    if timer.labels("import tar.gz"):
        side.delete_layer(timer("import tar.gz", lambda: side.import_layer(subject.gzip)))


def mapped_cycle(timer: Timer, base: str, first_host_id: int, strategy: Strategy) -> None:
    """Make two containers with the same new map, and delete everything again.

    The image is a new one on a layer that stays, so that each cycle finds no mapped copy.

    Args:
        timer: Takes the samples.
        base: ID of the image's only layer, which another image keeps.
        first_host_id: Where the map begins on the host; another one in each cycle.
        strategy: How the map is to be made.
    """
    side = timer.side
    image = side.create_image(base)
    first = timer("first container", lambda: side.create_container(image, first_host_id, strategy))
    timer("mount", lambda: side.mount(first))
    side.unmount(first)
    second = timer("next container", lambda: side.create_container(image, first_host_id, strategy))
    timer("delete container", lambda: side.delete_container(first))
    side.delete_container(second)
    timer("delete image", lambda: side.delete_image(image))


def driver_cycle(timer: Timer, side: InProcess, base: str, strategy: Strategy) -> None:
    """Let the driver alone copy a layer without changing its map: what is left of a mapped copy is owners.

    Args:
        timer: Takes the samples.
        side: The side of the timer.
        base: ID of the layer.
        strategy: ``"template"`` or ``"copy"``.
    """
    native = strategy == "template"
    side.remove_from_driver(timer("copy in driver", lambda: side.copy_in_driver(base, native=native)))


def crew_cycle(timer: Timer, image: str) -> None:
    """Make many containers of one image, one after the other and then at once, and delete them again.

    Args:
        timer: Takes the samples, of one container each.
        image: ID of the image.
    """
    side = timer.side

    def in_a_row() -> list[str]:
        return [side.create_container(image) for _ in range(CREW_SIZE)]

    def at_once() -> list[str]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda _: side.create_container(image), range(AT_ONCE)))

    made: list[str] = []
    one, another = CREW_WORKS
    if timer.labels(one):
        made += timer(one, in_a_row, times=CREW_SIZE)
    if timer.labels(another):
        made += timer(another, at_once, times=AT_ONCE)
    for container in made:
        side.delete_container(container)


def small_cycle(timer: Timer, empty_image: str) -> None:
    """Do what takes next to no work, so that its cost is start-up, locks and records.

    Args:
        timer: Takes the samples.
        empty_image: ID of an image whose only layer is empty, so that whole trees are not copied, either.
    """
    side = timer.side
    for _ in range(SMALL_ROUNDS):
        timer("layers", side.list_layers)
        timer("images", side.list_images)
        side.delete_layer(timer("create-layer", side.create_layer))
        container = timer("create-container", lambda: side.create_container(empty_image))
        side.delete_container(container)
        if isinstance(side, CommandSide):
            timer("--help", side.show_help)
