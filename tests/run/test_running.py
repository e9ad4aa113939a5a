"""Containers under every driver, with and without an ID map."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import IO

import pytest

from hostspec import run
from hostspec.errors import Duplicate, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.run import Process, RunOptions, RuntimeFailed, running
from tests.peers.busybox import GREETING_OWNER
from tests.run.conftest import DRIVERS
from tests.run.stages import IMAGE, MAP, MAPPED, UNMAPPED, Stage

every_driver = pytest.mark.parametrize("stage", DRIVERS, indirect=True)
LONG = os.environ.get("HOSTSPEC_LONG_TESTS", "") not in {"", "0"}
THREADS, SECONDS = (8, 60.0) if LONG else (4, 2.0)
NO_MAP = IdMap()
A_MAP = IdMap.parse([MAP])

LOOK = """
/bin/busybox id -u; cat /proc/self/uid_map; stat -c '%u %g' /etc/greeting
echo new > /new; stat -c '%u %g' /new
read line
"""


def _lines(stream: IO[bytes] | None, count: int) -> list[str]:
    assert stream is not None
    return [" ".join(stream.readline().decode().split()) for _ in range(count)]


def _host_owner(process: Process, path: str) -> tuple[int, int]:
    found = os.stat(f"/proc/{process.pid()}/root{path}")
    return found.st_uid, found.st_gid


def test_no_public_name_is_that_of_a_module_which_would_take_its_place() -> None:
    for name in run.__all__:
        with pytest.raises(ModuleNotFoundError):
            import_module(f"hostspec.run.{name}")
        assert callable(getattr(run, name))


@every_driver
@pytest.mark.parametrize("idmap", [NO_MAP, A_MAP], ids=["unmapped", "mapped"])
def test_processes_and_files_have_one_owner_inside_and_the_mapped_one_outside(
    stage: Stage, idmap: IdMap
) -> None:
    options = RunOptions(command=("sh", "-c", LOOK), idmap=idmap, remove=True)
    with running(stage.store, IMAGE, options, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert _lines(process.stdout, 4) == [
            "0", MAPPED if idmap else UNMAPPED, " ".join(map(str, GREETING_OWNER)), "0 0",
        ]  # fmt: skip
        assert _host_owner(process, "/etc/greeting") == idmap.to_host(*GREETING_OWNER)
        assert _host_owner(process, "/new") == idmap.to_host(0, 0)
        assert stage.containers() == [process.container]
    assert stage.containers() == []


@pytest.mark.parametrize("flags", [(), ("--uidmap", MAP)], ids=["unmapped", "mapped"])
def test_the_files_that_are_made_for_a_container_belong_to_its_root(
    stage: Stage, flags: tuple[str, ...]
) -> None:
    script = "cd /etc; /bin/busybox stat -c %u:%g hosts hostname resolv.conf && echo 10.0.0.9 other >> hosts"
    assert stage.good("run", "--rm", *flags, IMAGE, "sh", "-c", script) == "0:0\n" * 3


def test_what_a_container_wrote_stays_with_it_unless_it_is_to_be_removed(stage: Stage) -> None:
    stage.good("run", "--name", "stays", "--uidmap", MAP, IMAGE, "sh", "-c", "echo kept > /file")
    with stage.store.mounting("stays") as root, open(f"{root}/file", encoding="ascii") as file:
        assert file.read() == "kept\n"


def test_the_block_ends_a_container_that_still_runs(stage: Stage) -> None:
    with running(stage.store, IMAGE, RunOptions(command=("sleep", "1000"), remove=True)) as process:
        pid = process.pid()
        with pytest.raises(TimeoutError):
            process.wait(0.01)
    assert not os.path.exists(f"/proc/{pid}/root/bin")
    assert stage.containers() == []


def test_an_error_in_the_block_ends_the_container_too(stage: Stage) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    options = RunOptions(command=("sleep", "1000"), remove=True)
    with pytest.raises(ZeroDivisionError), running(stage.store, IMAGE, options):
        fail()
    assert stage.containers() == []


def test_wait_gives_the_exit_code(stage: Stage) -> None:
    with running(stage.store, IMAGE, RunOptions(command=("sh", "-c", "exit 3"), remove=True)) as process:
        assert process.wait() == 3


def test_wait_says_why_a_command_never_ran(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    options = RunOptions(command=("no-such-program",))
    with (
        running(stage.store, IMAGE, options) as process,
        pytest.raises(RuntimeFailed, match="no-such-program") as failure,
    ):
        process.wait()
    assert failure.value.exit_code == 127
    assert "no-such-program" in capfd.readouterr().err
    # There is nothing in it that anybody could want.
    assert stage.containers() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (RunOptions(), InvalidRequest),
        (RunOptions(command=("sh",), names=("taken",)), Duplicate),
        (RunOptions(command=("sh",), names=("one\n10.0.0.1 other",)), InvalidRequest),
        (RunOptions(command=("sh",), hostname="one other"), InvalidRequest),
        (RunOptions(command=("sh",), user="nobody-knows"), InvalidRequest),
        (RunOptions(command=("sh",), runtime="no-such-runtime"), RuntimeFailed),
        (RunOptions(command=("sh",), network="private", subnet="10.0.0.0/31"), InvalidRequest),
    ],
    ids=[
        "no-command",
        "name-taken",
        "bad-name",
        "bad-host-name",
        "no-such-user",
        "no-such-runtime",
        "bad-subnet",
    ],
)
def test_what_cannot_be_run_leaves_nothing(stage: Stage, options: RunOptions, error: type[Exception]) -> None:
    stage.store.create_container(IMAGE, names=["taken"], container_id="taken")
    with pytest.raises(error), running(stage.store, IMAGE, options):
        pass
    assert stage.containers() == ["taken"]


def test_a_user_who_is_not_root_is_told_so(stage: Stage) -> None:
    os.seteuid(65534)
    try:
        with (
            pytest.raises(InvalidRequest, match="takes root"),
            running(stage.store, IMAGE, RunOptions(command=("sh",))),
        ):
            pass
    finally:
        os.seteuid(0)


def test_an_image_that_is_not_there_is_unknown(stage: Stage) -> None:
    with pytest.raises(Unknown), running(stage.store, "nowhere", RunOptions(command=("sh",))):
        pass


def test_a_killed_container_has_the_exit_code_of_the_signal(stage: Stage) -> None:
    with running(stage.store, IMAGE, RunOptions(command=("sleep", "1000"), remove=True)) as process:
        os.kill(process.pid(), signal.SIGKILL)
        assert process.wait() == 128 + signal.SIGKILL


def test_threads_of_one_process_run_containers_beside_each_other(stage: Stage) -> None:
    """Each starts programs, which have the descriptors of all until they are executed."""
    end = time.monotonic() + SECONDS

    def work(number: int) -> int:
        idmap = IdMap.parse([f"0:{500_000 + 100_000 * (number % 2)}:70000"]) if number % 3 else NO_MAP
        options = RunOptions(command=("cat", "/etc/greeting"), idmap=idmap, remove=True)
        count = 0
        while not count or time.monotonic() < end:
            with running(stage.store, IMAGE, options, stdout=subprocess.PIPE) as process:
                assert _lines(process.stdout, 1) == ["hello"]
                assert process.wait() == 0
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as threads:
        assert min(threads.map(work, range(THREADS))) > 0
    assert stage.containers() == []
