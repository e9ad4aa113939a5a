"""Rounds of eight processes that work on one store at random, and of which some are killed in the middle.

``python -m tests.store.crowd ROOT RUN DRIVER ROUNDS SEED`` writes what is wrong afterwards, if anything is.
Each process reports what it is about to delete, and what has been acknowledged to it.
"""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable

from hostspec.errors import Duplicate, InUse, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.store import Store, open_store
from tests.store.invariants import faults_of, ids_in
from tests.store.tars import MAP, OTHER_MAP, tar_of

PROCESSES = 8
KILLED = 3
STEPS = 4
ROUNDS_BETWEEN_WIPES = 10
LONGEST_LIFE_OF_THE_KILLED = 0.06  # seconds
TARS = [
    tar_of({"etc": None, "etc/name": b"%d\n" % number}, uid=number, gid=2 * number) for number in range(3)
]
IDMAPS = [IdMap(), IdMap.parse([MAP]), IdMap.parse([OTHER_MAP])]
TO_BE_EXPECTED = (Unknown, Duplicate, InUse, InvalidRequest)

Report = Callable[[str, str], None]


class Worker:
    """What one process does, and tells."""

    def __init__(self, store: Store, report: Report, seed: int) -> None:
        self._store = store
        self._report = report
        self._random = random.Random(seed)  # noqa: S311 - a test that can be repeated

    def work(self) -> None:
        """Take some steps; that others delete what one is about to use is part of it."""
        steps = [
            self._import, self._import, self._make_image, self._make_image, self._make_container,
            self._make_container, self._make_container, self._mount, self._describe,
            self._delete_container, self._delete_image, self._delete_layer,
        ]  # fmt: skip
        for _ in range(STEPS):
            try:
                self._random.choice(steps)()
            except TO_BE_EXPECTED:
                continue

    def _any(self, of: list[str]) -> str | None:
        return self._random.choice(of) if of else None

    def _layers(self) -> list[str]:
        own = {container.layer for container in self._store.containers()}
        return [layer.id for layer in self._store.layers() if layer.id not in own]

    def _images(self) -> list[str]:
        return [image.id for image in self._store.images()]

    def _containers(self) -> list[str]:
        return [container.id for container in self._store.containers()]

    def _import(self) -> None:
        parent = self._any(self._layers())
        self._report("made", self._store.import_layer(io.BytesIO(self._random.choice(TARS)), parent).id)

    def _make_image(self) -> None:
        items = {"manifest": os.urandom(20), "sha256:config": b"{}"}
        self._report("made", self._store.create_image(self._any(self._layers()), big_data=items).id)

    def _make_container(self) -> None:
        image = self._any(self._images())
        made = self._store.create_container(
            image,
            idmap=self._random.choice(IDMAPS),
            strategy=self._random.choice(["auto", "template", "copy"]),
        )
        self._report("made", made.id)
        self._report("made", made.layer)

    def _mount(self) -> None:
        if container := self._any(self._containers()):
            path = self._store.mount(container)
            os.listdir(path)
            self._store.unmount(container)

    def _describe(self) -> None:
        made = self._store.create_layer(names=[f"name-{os.urandom(4).hex()}"])
        self._report("made", made.id)
        self._store.set_metadata(made.id, "described")
        self._report("described", made.id)

    def _delete_container(self) -> None:
        if container := self._any(self._containers()):
            layer = self._store.container(container).layer
            self._report("deleting", container)
            self._report("deleting", layer)
            self._store.delete_container(container)
            self._report("deleted", container)
            self._report("deleted", layer)

    def _delete_image(self) -> None:
        if image := self._any(self._images()):
            # Which layers go with it is decided when it goes.
            for each in (image, *self._layers()):
                self._report("deleting", each)
            gone = self._store.delete_image(image)
            for each in (image, *gone):
                self._report("deleted", each)

    def _delete_layer(self) -> None:
        if layer := self._any(self._layers()):
            self._report("deleting", layer)
            self._store.delete_layer(layer)
            self._report("deleted", layer)


def run_process(open_again: Callable[[], Store], report_to: int, seed: int) -> int:
    """Work in this process, and return its exit status."""

    def report(what: str, identifier: str) -> None:
        os.write(report_to, f"{what} {identifier}\n".encode())

    try:
        with open_again() as store:
            Worker(store, report, seed).work()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


def run_round(open_again: Callable[[], Store], seed: int) -> list[str]:
    """Let all processes work, kill some, and return what is wrong then."""
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    reading, writing = os.pipe()
    before = ids_in(open_again())
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            os.close(reading)
            status = run_process(open_again, writing, seed * PROCESSES + number)
            sys.stdout.flush()
            os._exit(status)
        children.append(child)
    os.close(writing)
    victims = chance.sample(children, KILLED)
    for victim in victims:
        time.sleep(chance.random() * LONGEST_LIFE_OF_THE_KILLED / KILLED)
        os.kill(victim, signal.SIGKILL)
    with open(reading, encoding="ascii") as reports:
        told = [line.split() for line in reports if line.endswith("\n")]
    wrong = []
    for child in children:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in {0, -signal.SIGKILL}:
            wrong.append(f"process {child} ended with {status}")
    with open_again() as store:
        return wrong + faults_after(store, before, told)


def faults_after(store: Store, before: set[str], told: list[list[str]]) -> list[str]:
    """Compare a store with what was acknowledged."""
    heard: dict[str, set[str]] = {"made": set(), "deleting": set(), "deleted": set(), "described": set()}
    for what, identifier in told:
        heard[what].add(identifier)
    store.shutdown(force=True)  # the killed have not unmounted
    present = ids_in(store)
    lost = (before | heard["made"]) - heard["deleting"] - present
    back = heard["deleted"] & present
    faults = [f"{each} is lost" for each in sorted(lost)] + [f"{each} is back" for each in sorted(back)]
    described = [layer for layer in store.layers() if layer.id in heard["described"]]
    faults += [f"{layer.id} has lost its description" for layer in described if layer.metadata != "described"]
    return faults + faults_of(store)


def main() -> int:
    """Run the rounds that the command line asks for."""
    root, run_root, driver, rounds, seed = sys.argv[1:]

    def open_again() -> Store:
        return open_store(root=root, run_root=run_root, driver=driver)

    for number in range(int(rounds)):
        wrong = run_round(open_again, int(seed) + number)
        if wrong:
            sys.stdout.write("\n  ".join([f"round {number}:", *wrong, ""]))
            return 1
        if number % ROUNDS_BETWEEN_WIPES == ROUNDS_BETWEEN_WIPES - 1:
            with open_again() as store:
                store.wipe()
                wrong = faults_of(store) + sorted(ids_in(store))
            if wrong:
                sys.stdout.write("\n  ".join([f"wipe after round {number}:", *wrong, ""]))
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
