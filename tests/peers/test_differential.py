"""The same random operations through hostspec and through containers-storage lead to the same.

Three stores see one sequence: on the first the two programs take turns as chance has it, on the second
hostspec is alone, on the third its peer. Every step must have the same outcome in all three, and in the
end both programs must see the same in all of them.

``HOSTSPEC_DIFFERENTIAL=N`` plays N sequences for each driver instead of a few.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import unmount
from hostspec.store import Store
from tests.peers.clients import Place, require_program
from tests.peers.differences import comparable, may_be_skipped, may_differ, told_of_any_maker
from tests.peers.players import PEER, play
from tests.peers.snapshots import Snapshot, snapshot
from tests.peers.vocabulary import FILES, FIRST_STEPS, Step, sequences

NUMBER_OF_SEQUENCES = int(os.environ.get("HOSTSPEC_DIFFERENTIAL", "4"))
LONGEST_SEQUENCE = 14
SHRINKING = "HOSTSPEC_DIFFERENTIAL" in os.environ  # looking for the shortest sequence takes minutes


class Stores(NamedTuple):
    """The three stores, empty, and the files of the steps."""

    mixed: Place
    ours: Place
    theirs: Place
    files: Mapping[str, str]
    scratch: str


@contextmanager
def stores(place: Place) -> Iterator[Stores]:
    """Make three stores, for one sequence."""
    with tempfile.TemporaryDirectory(prefix="hs-") as run:
        directory = tempfile.mkdtemp(dir=place.directory)
        mixed, ours, theirs = (
            Place(os.path.join(directory, each), os.path.join(run, each), place.driver)
            for each in ("mixed", "ours", "theirs")
        )
        files = {}
        for name, content in FILES.items():
            files[name] = os.path.join(directory, name.removeprefix("@"))
            Path(files[name]).write_bytes(content)
        try:
            yield Stores(mixed, ours, theirs, files, os.path.join(directory, "scratch"))
        finally:
            for each in (mixed, ours, theirs):
                with each.open() as store:
                    store.wipe()
            for path in mount_points(directory):
                unmount(path, lazy=True)
            shutil.rmtree(directory)


@settings(
    max_examples=NUMBER_OF_SEQUENCES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate] + ([Phase.shrink] if SHRINKING else []),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=sequences(LONGEST_SEQUENCE), turns=st.randoms(use_true_random=False))
def test_both_programs_do_the_same(place: Place, steps: list[Step], turns: random.Random) -> None:
    require_program(PEER)
    with stores(place) as made:
        with made.mixed.open() as long_lived:
            for step in (*FIRST_STEPS, *steps):
                _play_everywhere(made, step, our_turn=turns.random() < 1 / 2)
                _check_reloading(made.mixed, long_lived)
        _compare_snapshots(made)


def _play_everywhere(made: Stores, step: Step, *, our_turn: bool) -> None:
    ours = play(made.ours, step, made.files, ours=True)
    if may_be_skipped(step, ours):
        return
    theirs = play(made.theirs, step, made.files, ours=False)
    mixed = play(made.mixed, step, made.files, ours=our_turn)
    if may_differ(step, ours, theirs):
        return
    expected = comparable(step, theirs)
    assert comparable(step, ours) == expected, f"{step}: {ours} but {theirs}"
    together = told_of_any_maker(step, comparable(step, mixed))
    assert together == told_of_any_maker(step, expected), f"{step}, taking turns: {mixed} but {theirs}"


def _check_reloading(place: Place, long_lived: Store) -> None:
    """See that a store which was opened long ago sees what others have done since."""
    with place.open() as fresh:
        for kind in ("layers", "images", "containers"):
            assert getattr(long_lived, kind)() == getattr(fresh, kind)()


def _compare_snapshots(made: Stores) -> None:
    views: dict[str, Snapshot] = {
        "hostspec alone": snapshot(made.ours, "hostspec", made.scratch),
        "containers-storage alone": snapshot(made.theirs, "containers-storage", made.scratch),
        "taking turns, seen by hostspec": snapshot(made.mixed, "hostspec", made.scratch),
        "taking turns, seen by containers-storage": snapshot(made.mixed, "containers-storage", made.scratch),
    }
    reference = views.pop("containers-storage alone")
    for name, view in views.items():
        for field, expected in reference._asdict().items():
            assert _as_lines(getattr(view, field)) == _as_lines(expected), f"{field}, {name}"


def _as_lines(view: object) -> list[str]:
    """Return one line for each thing in a view, so that a failure shows only what differs."""
    if isinstance(view, dict):
        return [f"{key}: {line}" for key, value in view.items() for line in _as_lines(value)]
    if isinstance(view, list):
        return [str(each) for each in view]
    return sorted(view) if isinstance(view, frozenset) else str(view).splitlines()
