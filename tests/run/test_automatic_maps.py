"""``--userns auto`` by several processes at once, podman among them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.mounts import bind, unmount
from tests.peers.clients import Place, require_program
from tests.run.stages import IMAGE, Stage

LONG = os.environ.get("HOSTSPEC_LONG_TESTS", "") not in {"", "0"}
PROCESSES, SECONDS = (8, 60.0) if LONG else (3, 2.0)
FIRST = 3_000_000


@pytest.fixture(autouse=True)
def _granted(stage: Stage, tmp_path: Path) -> Iterator[None]:
    """Room for as many containers as there are, and no more."""
    del stage  # which is skipped where nobody is root
    file = tmp_path / "granted"
    file.write_text(f"containers:{FIRST}:{1024 * PROCESSES}\n")
    with ExitStack() as stack:
        for path in ("/etc/subuid", "/etc/subgid"):
            bind(str(file), path)
            stack.callback(unmount, path)
        yield


def _overlap(maps: list[IdMap]) -> bool:
    spans = sorted((each.host_id, each.host_id + each.size) for idmap in maps for each in idmap.uids)
    return any(one[1] > other[0] for one, other in pairwise(spans))


def test_no_two_containers_that_several_processes_run_have_an_id_in_common(stage: Stage) -> None:
    script = f"""
end=$(( $(date +%s) + {int(SECONDS)} ))
while [ $(date +%s) -lt $end ]; do "$@" || exit 1; done
"""
    run = (*stage.command, "run", "--rm", "--userns", "auto", IMAGE, "cat", "/proc/self/uid_map")
    seen = 0
    with ExitStack() as stack:
        workers = [
            stack.enter_context(stage.beside("sh", "-c", script, "sh", *run)) for _ in range(PROCESSES)
        ]
        while any(worker.poll() is None for worker in workers):
            maps = [each.idmap for each in stage.store.containers()]
            assert not _overlap(maps), maps
            seen = max(seen, len(maps))
            time.sleep(0.005)
        outputs = [worker.communicate() for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * PROCESSES, outputs
    assert seen > 0
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


def test_a_second_container_takes_the_copy_of_the_first(stage: Stage) -> None:
    words = ("run", "--rm", "--userns", "auto", "--idmap-strategy", "template", IMAGE, "sh", "-c", "true")
    stage.good(*words)
    (copy,) = stage.store.mapped_copies()
    stage.good(*words)
    assert [each.layer.id for each in stage.store.mapped_copies()] == [copy.layer.id]
