"""``--userns auto`` by several processes at once, podman among them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from tests.granted_ids import granted_ids
from tests.peers.clients import Place, require_program
from tests.run.stages import IMAGE, Stage

LONG = os.environ.get("HOSTSPEC_LONG_TESTS", "") not in {"", "0"}
PROCESSES, SECONDS = (8, 60.0) if LONG else (3, 2.0)
PATIENCE = 120.0  # seconds
FIRST = 3_000_000


@pytest.fixture(autouse=True)
def _granted(stage: Stage, tmp_path: Path) -> Iterator[None]:
    """Room for as many containers as there are, and no more."""
    del stage  # which is skipped where nobody is root
    with granted_ids(tmp_path / "granted", f"containers:{FIRST}:{1024 * PROCESSES}\n"):
        yield


def _overlap(maps: list[IdMap]) -> bool:
    spans = sorted((each.host_id, each.host_id + each.size) for idmap in maps for each in idmap.uids)
    return any(one[1] > other[0] for one, other in pairwise(spans))


def test_no_two_containers_that_several_processes_run_have_an_id_in_common(
    stage: Stage, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    script = f'until [ -e {enough} ]; do "$@" || exit 1; done'
    run = (*stage.command, "run", "--rm", "--userns", "auto", IMAGE, "cat", "/proc/self/uid_map")
    seen = 0
    with ExitStack() as stack:
        workers = [
            stack.enter_context(stage.beside("sh", "-c", script, "sh", *run)) for _ in range(PROCESSES)
        ]
        began = time.monotonic()
        while any(worker.poll() is None for worker in workers):
            maps = [each.idmap for each in stage.store.containers()]
            assert not _overlap(maps), maps
            seen = max(seen, len(maps))
            # On a busy machine it may take longer until two run at once.
            if time.monotonic() - began > (SECONDS if seen > 1 else PATIENCE):
                enough.touch()
            time.sleep(0.005)
        outputs = [worker.communicate() for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * PROCESSES, outputs
    assert seen > 1, "they ran one after another"
    assert stage.containers() == []


def test_a_map_has_no_id_in_common_with_a_container_of_podmans(stage: Stage) -> None:
    require_program("podman")
    place = Place(os.path.dirname(stage.store.root), stage.store.run_root, stage.store.driver_name)
    place.podman("create", "--name", "theirs", "--userns", "auto", IMAGE, "sh")
    try:
        ours = stage.good("run", "--rm", "--userns", "auto", IMAGE, "cat", "/proc/self/uid_map").split()
        (theirs,) = (each.idmap for each in stage.store.containers())
        assert theirs.root()[0] == FIRST
        assert int(ours[1]) >= FIRST + 1024
    finally:
        place.podman("rm", "theirs")


def test_podman_chooses_no_map_before_one_that_was_chosen_here_is_recorded(stage: Stage) -> None:
    require_program("podman")
    place = Place(os.path.dirname(stage.store.root), stage.store.run_root, stage.store.driver_name)
    with ThreadPoolExecutor(1) as thread:
        with stage.store.automatic_idmap(IMAGE) as idmap:
            theirs = thread.submit(
                place.podman, "create", "--name", "theirs", "--userns", "auto", IMAGE, "sh"
            )
            while not _is_waited_for(os.path.join(stage.store.root, "userns.lock")):
                assert not theirs.done()
                time.sleep(0.01)
            stage.store.create_container(IMAGE, names=["ours"], idmap=idmap)
        theirs.result()
    maps = [each.idmap for each in stage.store.containers()]
    place.podman("rm", "theirs")
    assert len(maps) == 2
    assert not _overlap(maps), maps


def _is_waited_for(path: str) -> bool:
    """Tell whether somebody waits for a lock on a file (proc(5), /proc/locks)."""
    inode = str(os.stat(path).st_ino)
    with open("/proc/locks", encoding="ascii") as table:
        rows = [line.split() for line in table]
    return any(row[1] == "->" and row[6].split(":")[2] == inode for row in rows)


def test_a_second_container_takes_the_copy_of_the_first(stage: Stage) -> None:
    words = ("run", "--rm", "--userns", "auto", "--idmap-strategy", "template", IMAGE, "sh", "-c", "true")
    stage.good(*words)
    (copy,) = stage.store.mapped_copies()
    stage.good(*words)
    assert [each.layer.id for each in stage.store.mapped_copies()] == [copy.layer.id]
