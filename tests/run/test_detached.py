"""Containers that run on by themselves, and the commands about them."""

from __future__ import annotations

import json
import os
import shlex

import pytest

from hostspec.run import list_runs
from tests.run.conftest import DRIVERS
from tests.run.stages import IMAGE, MAP, MAPPED, Stage

WAIT = "trap 'exit 7' TERM; echo started; while :; do sleep 0.05; done"


@pytest.mark.parametrize("stage", DRIVERS, indirect=True)
def test_a_detached_container_is_listed_joined_and_stopped(stage: Stage) -> None:
    identifier = stage.good("run", "-d", "--name", "web", "--uidmap", MAP, IMAGE, "sh", "-c", WAIT).strip()
    (listed,) = json.loads(stage.good("ps", "--json"))
    assert (listed["id"], listed["names"], listed["running"]) == (identifier, ["web"], True)
    assert os.path.exists(f"/proc/{listed['pid']}")

    done = stage("exec", "-i", "web", "sh", "-c", "cat /proc/self/uid_map; cat; exit 4", content=b"typed")
    assert done.code == 4, done
    assert " ".join(done.out.split()) == f"{MAPPED} typed"

    stage.good("stop", "web")
    assert stage.good("ps", "-q") == ""
    assert "ended (7)" in stage.good("ps", "-a")
    assert stage.good("logs", "web") == "started\n"
    stage.good("rm", "web")
    assert stage.containers() == []


def test_one_that_is_to_be_removed_is_gone_when_it_has_ended(stage: Stage) -> None:
    stage.good("run", "-d", "--rm", "--name", "short", IMAGE, "sleep", "1000")
    assert stage("rm", "short").code == 1, "it runs"
    stage.good("rm", "-f", "short")
    assert stage.containers() == []


def test_one_that_does_not_end_by_itself_is_killed(stage: Stage) -> None:
    stage.good("run", "-d", "--name", "deaf", IMAGE, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    stage.good("stop", "-t", "0", "deaf")
    (listed,) = list_runs(stage.store, ended=True)
    assert listed.record.exit_code == 137


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_detached_container_outlives_its_command_whichever_streams_that_lacks(
    stage: Stage, closed: str
) -> None:
    words = shlex.join([*stage.command, "run", "-d", "--name", "web", IMAGE, "sleep", "1000"])
    with stage.beside("sh", "-c", f"exec {words} {closed}") as command:
        assert command.wait() == 0
    (listed,) = json.loads(stage.good("ps", "--json"))
    assert listed["running"]
    stage.good("rm", "-f", "web")


def test_a_command_that_cannot_be_started_is_told_to_whoever_asked(stage: Stage) -> None:
    done = stage("run", "-d", IMAGE, "no-such-program")
    assert done.code == 127
    assert "no-such-program" in done.err
    assert stage.containers() == []


def test_exec_has_the_users_environment_and_directory_that_are_asked_for(stage: Stage) -> None:
    stage.good("run", "-d", "--rm", "--name", "web", "-e", "A=first", "-e", "B=1", IMAGE, "sleep", "1000")
    script = "/bin/busybox id -u; pwd; echo $A $B"
    words = ("-u", "7:8", "-w", "/etc", "-e", "A=second", "web", "sh", "-c", script)
    assert stage.good("exec", *words) == "7\n/etc\nsecond 1\n"
    assert stage.good("exec", "-u", "7", "web", "sh", "-c", "echo $HOME") == "/\n", "and not root's"
    assert stage("exec", "web", "no-such-program").code == 127
    stage.good("rm", "-f", "web")
    assert stage("exec", "web", "sh").code == 125


def test_a_container_that_something_else_made_is_not_removed(stage: Stage) -> None:
    stage.store.create_container(IMAGE, names=["other"])
    done = stage("rm", "other")
    assert done.code == 1
    assert "delete-container" in done.err
