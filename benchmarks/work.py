"""The work that is measured: scenarios, and the cycles of steps that each contestant goes through."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from benchmarks.command import CommandSide
from benchmarks.ours import InProcess
from benchmarks.record import Label, Timer
from benchmarks.side import STRATEGIES
from benchmarks.subjects import Subject
from hostspec.store.mapped import Strategy

__all__ = [
    "DRIVER_WORKS",
    "LAYER_WORKS",
    "MAPPED_WORKS",
    "SCENARIOS",
    "SMALL_WORKS",
    "Scenario",
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
SMALL_WORKS = ("layers", "create-layer", "create-container", "--help")


class Scenario(NamedTuple):
    """A driver on a file system, with options."""

    driver: str
    """The driver's name."""
    filesystem: str
    """``"xfs"`` or ``"btrfs"`` for one on a loop file, ``""`` for the scratch directory's own."""
    options: tuple[str, ...] = ()
    """Storage options, the same on both sides."""
    name: str = ""
    """What the options are called in the report."""


METACOPY = ("overlay.mountopt=nodev,metacopy=on",)
PLAIN = ("overlay.mountopt=nodev",)

SCENARIOS = (
    Scenario("overlay", "", PLAIN),
    Scenario("overlay", "", METACOPY, "metacopy"),
    Scenario("overlay", "xfs", PLAIN),
    Scenario("overlay", "xfs", METACOPY, "metacopy"),
    Scenario("btrfs", "btrfs"),
    Scenario("vfs", ""),
    Scenario("vfs", "xfs"),
)


def labels_of(scenario: Scenario, filesystem: str) -> Iterator[Label]:
    """Yield the label of every row that a scenario may have, given the name of its file system."""
    for works, ways in (
        (LAYER_WORKS, ("",)),
        (MAPPED_WORKS, STRATEGIES),
        (DRIVER_WORKS, STRATEGIES[1:]),
        (SMALL_WORKS, () if scenario.name else ("",)),
    ):
        for way, work in product(ways, works):
            yield Label(work, scenario.driver, filesystem, way_of(way, scenario))


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


def small_cycle(timer: Timer, empty_image: str) -> None:
    """Do what takes next to no work, so that its cost is start-up, locks and records.

    Args:
        timer: Takes the samples.
        empty_image: ID of an image whose only layer is empty, so that whole trees are not copied, either.
    """
    side = timer.side
    for _ in range(SMALL_ROUNDS):
        timer("layers", side.list_layers)
        side.delete_layer(timer("create-layer", side.create_layer))
        container = timer("create-container", lambda: side.create_container(empty_image))
        side.delete_container(container)
        if isinstance(side, CommandSide):
            timer("--help", side.show_help)
