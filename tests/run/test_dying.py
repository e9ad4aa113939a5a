"""Whatever is killed, and wherever: the next command takes down what is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostspec.kernel.mounts import unmount_all
from hostspec.run import list_runs
from hostspec.run.cgroups import remove_cgroup
from hostspec.run.orphans import kill_and_wait, kill_orphans
from tests.run.conftest import DRIVERS
from tests.run.stages import ENVIRONMENT, IMAGE, MAP, Stage, parent_of

PLACES = [
    ("hostspec.run.places", "RunPlace.acquire", "return"),
    ("hostspec.run.runs", "Run.own", "return"),
    ("hostspec.store.containers", "create_container", "call"),
    ("hostspec.store.containers", "create_container", "return"),
    ("hostspec.store.mounting", "mount", "return"),
    ("hostspec.run.network", "lease_address", "return"),
    ("hostspec.run.preparing", "prepare", "return"),
    ("hostspec.run.starting", "start", "return"),
    ("hostspec.run.runs", "Run.finish", "call"),
    ("hostspec.run.cgroups", "remove_cgroup", "return"),
    ("hostspec.run.network", "release", "return"),
    ("hostspec.store.removal", "delete_container", "return"),
    ("hostspec.run.places", "RunPlace.forget", "return"),
]


def _flags(stage: Stage) -> tuple[str, ...]:
    return ("--rm", "--uidmap", MAP, "--network", "private", "--subnet", stage.subnet)


def _killed_at(stage: Stage, place: tuple[str, str, str], *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tests.run.dying", *place, *stage.command[3:], *words],
        cwd=Path(__file__).parents[2],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[1]}-{place[2]}")
def test_nothing_is_left_of_a_command_that_was_killed(stage: Stage, place: tuple[str, str, str]) -> None:
    done = _killed_at(stage, place, "run", *_flags(stage), IMAGE, "sleep", "0.2")
    assert done.returncode == -signal.SIGKILL, done
    stage.remember()
    stage.good("ps")
    assert stage.containers() == []
    assert stage.leftovers() == []


@pytest.mark.parametrize(
    "place",
    [("hostspec.store.mounting", "unmount", "return"), ("hostspec.run.places", "RunPlace.forget", "call")],
    ids=lambda place: place[1],
)
def test_a_container_that_stays_is_not_taken_for_one_that_never_ran(
    stage: Stage, place: tuple[str, str, str]
) -> None:
    done = _killed_at(stage, place, "run", "--name", "stays", IMAGE, "sh", "-c", "exit 3")
    assert done.returncode == -signal.SIGKILL, done
    assert "ended (3)" in stage.good("ps", "-a")
    assert not stage.store.mounted("stays")


@pytest.mark.parametrize("stage", DRIVERS, indirect=True)
def test_a_running_container_ends_after_its_command_was_killed(stage: Stage) -> None:
    with stage.started("run", *_flags(stage), IMAGE, "sh", "-c", "echo ready; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while (listed := list_runs(stage.store)[0]).process is None:
            time.sleep(0.01)  # the runtime writes it down after it has started it
        stage.remember()
        process.kill()
        process.wait()
        stage.good("ps")
        assert process.stdout.read() == b"", "whoever held the other end has ended"
    assert listed.process is not None
    assert not os.path.exists(f"/proc/{listed.process}/root/bin")
    assert stage.containers() == []


def test_a_detached_container_ends_after_the_process_that_looked_after_it_was_killed(stage: Stage) -> None:
    stage.good("run", "-d", "--name", "stays", IMAGE, "sleep", "1000")
    stage.good("run", "-d", *_flags(stage), IMAGE, "sleep", "1000")
    for each in list_runs(stage.store):
        assert each.process is not None
        os.kill(parent_of(each.process), signal.SIGKILL)
    assert stage.good("ps", "-q") == ""
    (left,) = list_runs(stage.store, ended=True)
    assert left.container.names == ("stays",)
    assert left.record.exit_code is None
    assert not stage.store.mounted("stays")


def test_a_container_that_was_to_be_removed_is_gone_after_a_reboot(stage: Stage) -> None:
    stage.good("run", "-d", "--name", "stays", IMAGE, "sleep", "1000")
    stage.good("run", "-d", "--rm", IMAGE, "sleep", "1000")
    for each in list_runs(stage.store):
        assert each.process is not None
        os.kill(parent_of(each.process), signal.SIGKILL)
        kill_and_wait(each.process, lambda: True)
        remove_cgroup(each.record.cgroup)
    # Of the run root, nothing survives a reboot; of mounts and control groups neither.
    unmount_all(stage.store.root)
    for name in os.listdir(stage.store.run_root):
        shutil.rmtree(os.path.join(stage.store.run_root, name))
    assert "ended" in stage.good("ps", "-a")
    (left,) = stage.store.containers()
    assert left.names == ("stays",)


def test_a_process_that_got_the_id_of_one_to_be_killed_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        kill_and_wait(other.pid, lambda: False)
        assert other.poll() is None
        kill_and_wait(other.pid, lambda: True)
        assert other.wait() == -signal.SIGKILL


def test_a_runtime_that_is_a_script_is_found_too(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text("#!/bin/sh -e\necho started\nread line\n")
    runtime.chmod(0o755)
    directory = str(tmp_path / "run")
    words = (runtime, "run", "--bundle", directory)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        kill_orphans(directory, str(runtime))
        assert process.poll() == -signal.SIGKILL
