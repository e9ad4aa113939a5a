"""The main job: one image, three ID maps, every way that a driver has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple, cast

from hostspec.cli.demo.host_ids import HostIds, three_maps
from hostspec.cli.demo.listing import CheckFailed, Entry, check, listing
from hostspec.cli.demo.material import Material
from hostspec.idmap import IdMap
from hostspec.images import import_image
from hostspec.store import Container, Image, Layer, Store
from hostspec.store.configuration.policy import Strategy

__all__ = ["Outcome", "Result", "run_trial"]


class Outcome(NamedTuple):
    """What one way of mapping cost on one driver."""

    strategy: str
    """``shift``, ``template`` or ``copy``."""
    seconds: float
    """To create and mount a container, median over the maps."""
    reused_seconds: float
    """The same for a second container with the same map."""
    bytes_written: int
    """Bytes on disk that the image took under one more map."""
    files: int
    """Files checked inside each mount."""


class Trial(NamedTuple):
    """One store with the image in it."""

    store: Store
    image: Image
    expected: Mapping[str, Entry]
    """What the image holds, unmapped."""
    host_ids: HostIds


class Result(NamedTuple):
    """What became of one driver."""

    imported: float
    """Seconds that the import took."""
    outcomes: tuple[Outcome, ...]
    """What each way cost that is possible."""
    missing: tuple[tuple[str, str], ...]
    """The other ways, each with why it is not possible."""


def run_trial(store: Store, material: Material, host_ids: HostIds) -> Result:
    """Import the image, map it in every way that this driver has, and delete everything.

    Raises:
        CheckFailed: A mounted container shows a wrong owner or content, or something was left behind.
    """
    start = time.perf_counter()
    image = import_image(
        store,
        material.source,
        names=["demo"],
        further_layers=material.further_layers,
        squash=host_ids.squash,
    )
    imported = time.perf_counter() - start
    with store.mounting(image.id, read_only=True) as root:
        expected = listing(root)
    trial = Trial(store, image, expected, host_ids)
    possible, missing = _ways(trial)
    outcomes = [_try_strategy(trial, turn, strategy) for turn, strategy in enumerate(possible)]
    store.delete_image(image.id)
    _check_empty(store)
    return Result(imported, tuple(outcomes), missing)


def _ways(trial: Trial) -> tuple[list[Strategy], tuple[tuple[str, str], ...]]:
    """Return the ways that this driver has, the cheapest first, and why it has not the others."""
    possible: list[Strategy] = []
    missing = []
    for way in trial.store.idmap_strategies(_maps(trial, 0)[0]):
        if not way.possible:
            missing.append((way.name, way.reason))
        elif way.name == "shift" and trial.host_ids.squash:
            missing.append(
                (way.name, "a mount cannot squash owners: it shows those outside the map as nobody's")
            )
        else:
            possible.append(cast(Strategy, way.name))
    return possible, tuple(missing)


def _maps(trial: Trial, turn: int) -> tuple[IdMap, ...]:
    used = {number for entry in trial.expected.values() for number in (entry.uid, entry.gid)}
    return three_maps(trial.host_ids, turn, sorted(used))


def _try_strategy(trial: Trial, turn: int, strategy: Strategy) -> Outcome:
    first, second, written = [], [], []
    for idmap in _maps(trial, turn):
        seconds, top = _use_container(trial, strategy, idmap, with_content=True)
        first.append(seconds)
        # The second container stands on the same files, so it is enough to look at their owners.
        seconds, reused = _use_container(trial, strategy, idmap, with_content=False)
        second.append(seconds)
        if reused != top:
            raise CheckFailed(
                f"a second container with the map {idmap} does not reuse {top} but has {reused}"
            )
        written.append(0 if top == trial.image.layer else trial.store.disk_usage(top).exclusive_bytes)
    return Outcome(
        strategy,
        statistics.median(first),
        statistics.median(second),
        int(statistics.median(written)),
        len(trial.expected),
    )


def _use_container(
    trial: Trial, strategy: Strategy, idmap: IdMap, *, with_content: bool
) -> tuple[float, str]:
    """Create, mount, check and delete a container; return the seconds to its mount, and on what it stood."""
    store = trial.store
    squash = trial.host_ids.squash
    start = time.perf_counter()
    container = store.create_container(trial.image.id, idmap=idmap, strategy=strategy, squash=squash)
    root = store.mount(container.id)
    seconds = time.perf_counter() - start
    try:
        check(root, trial.expected, idmap, squash=squash, with_content=with_content)
        top = store.layer(container.layer).parent or ""
    finally:
        store.unmount(container.id)
        store.delete_container(container.id)
    return seconds, top


def _check_empty(store: Store) -> None:
    """Raise CheckFailed if anything is left: a record, or a layer in the driver that no record names."""
    left: list[Container | Image | Layer] = [*store.containers(), *store.images(), *store.layers()]
    names = [each.id for each in left] or list(store.driver.list_layers())
    if names:
        raise CheckFailed(f"after everything was deleted, {', '.join(names)} is left in {store.root}")
