"""Eight processes, half hostspec and half containers-storage, work on one store at the same time.

Ten seconds, divided among the drivers; ``HOSTSPEC_LONG_TESTS=1`` makes it a minute for each.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

from hostspec.kernel.mountinfo import mount_points
from tests.peers.clients import Place, require_program
from tests.peers.conftest import DRIVERS
from tests.peers.crowd import IMAGE, SHARED
from tests.store.invariants import faults_of
from tests.store.tars import tar_of

PEER = "containers-storage"
PROCESSES = 8
SECONDS = 60.0 if os.environ.get("HOSTSPEC_LONG_TESTS") == "1" else 10.0 / len(DRIVERS)
PATIENCE = 60.0  # seconds for the last step of each, which may wait for all others
TREE = Path(__file__).parents[2]


def test_eight_processes_share_a_store(place: Place) -> None:
    require_program(PEER)
    with place.open() as store:
        layer = store.import_layer(io.BytesIO(tar_of({"etc": None, "etc/name": b"base\n"})))
        store.create_image(layer.id, names=[IMAGE])
        store.create_container(IMAGE, names=[SHARED])
        crowd = [_start(place, number) for number in range(PROCESSES)]
        complaints = [_end(each) for each in crowd]
        assert [each for each in complaints if each] == []

        expected = {f"{_program(number)}-{number}-stays" for number in range(PROCESSES)}
        containers = {each.id for each in store.containers() if SHARED not in each.names}
        assert containers == expected
        in_use = {each.layer for each in store.containers()} | set(store.image(IMAGE).top_layers)
        assert {each.id for each in store.layers()} == in_use
        assert [each.id for each in store.layers() if store.mounted(each.id)] == []
        for kind in ("layers", "images", "containers"):
            ours = {each.id for each in getattr(store, kind)()}
            assert set(_ids(place.containers_storage(kind))) == ours
        home = os.path.join(place.graph, place.driver)
        assert set(mount_points(place.graph)) <= {home}  # bound on itself, as the peer leaves it
        assert faults_of(store) == []


def _program(number: int) -> str:
    return "hostspec" if number % 2 else PEER


def _start(place: Place, number: int) -> subprocess.Popen[str]:
    words = (_program(number), str(number), str(SECONDS), place.graph, place.run, place.driver)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.peers.crowd", *words],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> str:
    """Wait for a process, and return what it complained about."""
    with process:
        try:
            told, _ = process.communicate(timeout=SECONDS + PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
            return f"was not done in time; {told}"
    if process.returncode != 0:
        return told
    assert int(told) > 0, "not one round was finished"
    return ""


def _ids(listing: str) -> list[str]:
    return [line for line in listing.splitlines() if not line.startswith("\t")]
