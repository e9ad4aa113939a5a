"""Containers that run on by themselves, and the commands about them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from hostspec.images import import_image
from hostspec.run import list_runs
from tests.peers import busybox
from tests.run.conftest import DRIVERS
from tests.run.stages import IMAGE, MAP, MAPPED, Stage, parent_of

SIZE = 300 << 20  # bytes
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


def test_a_script_says_what_is_printed_of_each(stage: Stage) -> None:
    identifier = stage.good("run", "-d", "--rm", "--name", "web", IMAGE, "sleep", "1000").strip()
    template = r"{{.Names}}\t{{ .Image }} {{.Status}}, {{.Command}}: {{.ID}}"
    assert stage.good("ps", "--format", template) == (
        f"web\t{IMAGE} running, sleep 1000: {identifier[:12]}\n"
    )
    assert stage.good("ps", "--format", "json") == stage.good("ps", "--json")
    done = stage("ps", "--format", "{{.Nothing}}")
    assert (done.code, done.out) == (1, "")
    assert "{{.Nothing}} is none of {{.ID}}, {{.Image}}" in done.err
    stage.good("rm", "-f", "web")


def test_output_is_followed_until_the_container_has_ended(stage: Stage) -> None:
    script = "echo one; trap 'echo two; exit' TERM; while :; do sleep 0.05; done"
    stage.good("run", "-d", "--rm", "--name", "web", IMAGE, "sh", "-c", script)
    with stage.started("logs", "--follow", "web") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"one\n"
        stage.good("stop", "web")
        assert following.communicate() == (b"two\n", b"")
    assert following.returncode == 0


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
    assert stage("exec", "web", "no-such-program").code == 127
    stage.good("rm", "-f", "web")
    assert stage("exec", "web", "sh").code == 125


def test_exec_has_the_home_of_its_user_unless_another_was_asked_for(stage: Stage, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(0o755)
    busybox.make_root(str(root))
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:7:8::/srv:/bin/sh\n")
    import_image(stage.store, str(root), names=["homes"])
    stage.good("run", "-d", "--rm", "--name", "usual", "homes", "sleep", "1000")
    stage.good("run", "-d", "--rm", "--name", "own", "-e", "HOME=/own", "homes", "sleep", "1000")
    home = ("sh", "-c", "echo $HOME")
    assert stage.good("exec", "-u", "web", "usual", *home) == "/srv\n"
    assert stage.good("exec", "-u", "9", "usual", *home) == "/\n"
    assert stage.good("exec", "-u", "web", "own", *home) == "/own\n"
    stage.good("rm", "-f", "usual", "own")


@pytest.mark.parametrize(
    "words", [("delete-container", "web"), ("delete", "web"), ("wipe",)], ids=lambda words: words[0]
)
def test_a_container_that_runs_is_not_deleted_behind_its_back(stage: Stage, words: tuple[str, ...]) -> None:
    stage.good("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    done = stage(*words)
    assert done.code == 1
    assert "is running; 'hostspec rm --force' ends it" in done.err
    stage.good("stop", "-t", "0", "web")
    stage.good(*words)
    assert stage.containers() == []


def test_two_stops_at_once_both_see_it_stopped(stage: Stage) -> None:
    stage.good("run", "-d", "--name", "web", IMAGE, "sh", "-c", WAIT)
    with stage.started("stop", "web") as one, stage.started("stop", "-t", "0", "web") as other:
        assert (one.communicate(), other.communicate()) == ((b"web\n", b""), (b"web\n", b""))
    assert stage.good("ps", "-q") == ""


def test_what_a_container_writes_is_printed_without_being_held_in_memory(stage: Stage) -> None:
    stage.good("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    data = stage.store.data_directory(stage.store.container("web"))
    with open(f"{data}/hostspec-output.log", "ab") as file:
        file.truncate(SIZE)
    # Too little memory for all of it, and enough for everything else.
    script = f'ulimit -v {SIZE // 1024}; "$@" | wc -c'
    with stage.beside("sh", "-c", script, "sh", *stage.command, "logs", "web") as command:
        out, err = command.communicate()
    assert (int(out), err) == (SIZE, b"")
    stage.good("rm", "-f", "web")


def test_a_container_whose_runtime_is_gone_is_taken_down_all_the_same(stage: Stage, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    shutil.copy(shutil.which("runc") or "", runtime)
    stage.good("run", "-d", "--rm", "--runtime", str(runtime), IMAGE, "sleep", "1000")
    (listed,) = list_runs(stage.store)
    assert listed.process is not None
    if not listed.record.cgroup:
        pytest.skip("no control groups can be made here, so that nothing else knows its processes")
    runtime.unlink()
    stage.remember()
    os.kill(parent_of(listed.process), signal.SIGKILL)
    assert stage.good("ps", "-a", "-q") == ""


def test_a_container_that_something_else_made_is_not_removed(stage: Stage) -> None:
    stage.store.create_container(IMAGE, names=["other"])
    done = stage("rm", "other")
    assert done.code == 1
    assert "delete-container" in done.err
