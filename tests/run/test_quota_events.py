"""Limits that the kernel keeps and warns about, down to the command that prints it; tests/vm runs these.

Where a kernel has no project quotas nothing here can be shown, except what is refused.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostspec.kernel.loop import loop_filesystem
from hostspec.store import Store, open_store
from hostspec.values import CreateOptions
from tests.run.stages import COMMAND, ENVIRONMENT, IMAGE, MAP, Stage

MIB = 1 << 20
_PATIENCE_SECONDS = 300
_OVER_THE_LIMIT = {errno.ENOSPC, errno.EDQUOT}


class Limited:
    """A store with a container that has limits."""

    def __init__(self, store: Store, limits: Sequence[tuple[str, str]]) -> None:
        self.store = store
        self.container = store.create_container(names=["web"], storage_options=limits).id
        self.command = (*COMMAND, "-g", store.root, "-R", store.run_root, "-s", store.driver_name)

    def good(self, *words: str) -> str:
        done = subprocess.run([*self.command, *words], capture_output=True, env=ENVIRONMENT, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    def fill(self) -> int:
        """Write more than the container may have, and return the error."""
        with self.store.mounting(self.container) as root:
            try:
                with open(f"{root}/big", "wb", buffering=0) as file:
                    file.writelines(bytes(MIB) for _ in range(16))
                    os.fsync(file.fileno())
            except OSError as error:
                return error.errno or -1
        return 0

    def litter(self) -> int:
        """Make more files than the container may have, and return the error."""
        with self.store.mounting(self.container) as root:
            try:
                for number in range(80):
                    os.mkdir(f"{root}/{number}")
            except OSError as error:
                return error.errno or -1
        return 0

    @contextmanager
    def listening(self, *flags: str) -> Iterator[subprocess.Popen[str]]:
        """Run ``hostspec events``, from when it listens on."""
        process = subprocess.Popen(
            [*self.command, "events", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        with process:
            try:
                end = time.monotonic() + _PATIENCE_SECONDS
                while not _listens(process.pid):
                    assert process.poll() is None, process.communicate()
                    assert time.monotonic() < end
                    time.sleep(0.05)
                yield process
            finally:
                process.kill()


def _listens(process: int) -> bool:
    """Tell whether a process has a generic netlink socket that is in a group (proc(5), /proc/net/netlink)."""
    with open("/proc/net/netlink", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == "16" and int(row[3], 16)}
    try:
        fds = [f"/proc/{process}/fd/{fd}" for fd in os.listdir(f"/proc/{process}/fd")]
        return any(os.readlink(fd) in sockets for fd in fds)
    except FileNotFoundError:
        return False


@pytest.fixture
def limited(project_quota_directory: str) -> Iterator[Limited]:
    """A container that may have 8 MiB and 60 inodes, by project quotas."""
    root, run_root = f"{project_quota_directory}/graph", f"{project_quota_directory}/run"
    with open_store(root=root, run_root=run_root, driver="overlay") as store:
        yield Limited(store, [("size", "8m"), ("inodes", "60")])
        store.wipe()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_events_names_the_container_that_comes_to_its_limit(limited: Limited, ending: signal.Signals) -> None:
    with limited.listening() as process:
        assert limited.fill() in _OVER_THE_LIMIT
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z web: limit reached \(8\.0 MiB\)\n", line)
        process.send_signal(ending)
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")


def test_events_are_one_json_object_a_line(limited: Limited) -> None:
    with limited.listening("--json") as process:
        assert limited.litter() in _OVER_THE_LIMIT
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
    project = limited.store.disk_usage(limited.container).project
    place = os.stat(limited.store.root).st_dev
    assert told.pop("time").endswith("Z")
    assert told == {
        "container": limited.container,
        "names": ["web"],
        "event": "limit reached",
        "resource": "inodes",
        "limit": 60,
        "project": project,
        "device": f"{os.major(place)}:{os.minor(place)}",
        "uid": 0,
    }


def test_a_warning_about_what_is_no_container_is_printed_with_its_number(limited: Limited) -> None:
    driver = limited.store.driver
    driver.create("loose", None, CreateOptions(size=4 * MIB))
    driver.commit("loose")
    number = driver.disk_usage("loose").project
    with limited.listening() as process:
        with (
            driver.mounted("loose", read_only=False) as root,
            pytest.raises(OSError, match=r"No space|quota"),
        ):
            _write(f"{root}/big", 8 * MIB)
        assert process.stdout is not None
        assert process.stdout.readline().endswith(f"Z project {number}: limit reached (bytes)\n")
    driver.remove("loose")
    assert number not in {None, limited.store.disk_usage(limited.container).project}


def _write(path: str, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        file.writelines(bytes(MIB) for _ in range(size // MIB))
        os.fsync(file.fileno())


def test_df_shows_what_limited_containers_have_of_what_they_may_have(limited: Limited) -> None:
    with limited.store.mounting(limited.container) as root:
        _write(f"{root}/some", 3 * MIB)
    (found,) = json.loads(limited.good("df", "--json"))["limited"]
    assert (found["container"], found["limit_bytes"], found["limit_inodes"]) == (
        limited.container,
        8 * MIB,
        60,
    )
    assert 3 * MIB <= found["bytes"] < 4 * MIB
    assert 0 < found["inodes"] < 60
    assert re.search(r"\nweb +3\.\d MiB of 8\.0 MiB +\d+ of 60\n", limited.good("df"))


def test_df_shows_limits_by_quota_groups_too(tmp_path: Path, btrfs_directory: str) -> None:  # noqa: ARG001 - skips
    with loop_filesystem("btrfs", str(tmp_path), size_bytes=256 * MIB) as place:
        subprocess.run(["btrfs", "quota", "enable", place], check=True, capture_output=True)
        with open_store(root=f"{place}/graph", run_root=f"{place}/run", driver="btrfs") as store:
            limited = Limited(store, [("size", "64m")])
            assert re.search(r"\nweb +[\d.]+ (Ki)?B of 64\.0 MiB +\d+\n", limited.good("df"))
            store.wipe()


def test_a_running_container_is_kept_to_its_limit_by_a_quota_group(
    tmp_path: Path,
    btrfs_directory: str,  # noqa: ARG001 - skips
    box: str,
) -> None:
    with loop_filesystem("btrfs", str(tmp_path), size_bytes=256 * MIB) as place:
        subprocess.run(["btrfs", "quota", "enable", place], check=True, capture_output=True)
        with open_store(root=f"{place}/graph", run_root=f"{place}/run", driver="btrfs") as store:
            stage = Stage(store, "10.219.0.0/28")
            stage.good("import", "--name", IMAGE, box)
            words = ("run", "--name", "web", "--uidmap", MAP, "--storage-opt", "size=16m", IMAGE, "sh", "-c")
            done = stage(*words, "/bin/busybox dd if=/dev/zero of=/big bs=1M count=32 conv=fsync || exit 7")
            assert done.code == 7, done
            assert "quota exceeded" in done.err
            (listed,) = json.loads(stage.good("ps", "-a", "--size", "--json"))
            assert (listed["limit-bytes"], listed["limit-inodes"]) == (16 * MIB, None)
            assert 0 < listed["bytes"] <= 16 * MIB
            store.wipe()
            assert stage.leftovers() == []


def test_a_running_container_is_kept_to_its_limit_and_listed_with_it(
    project_quota_directory: str, box: str
) -> None:
    root, run_root = f"{project_quota_directory}/graph", f"{project_quota_directory}/run"
    with open_store(root=root, run_root=run_root, driver="overlay") as store:
        stage = Stage(store, "10.219.0.0/28")
        stage.good("import", "--name", IMAGE, box)
        words = ("run", "--rm", "--uidmap", MAP, "--storage-opt", "size=8m", IMAGE, "sh", "-c")
        done = stage(*words, "/bin/busybox dd if=/dev/zero of=/big bs=1M count=16 || exit 7")
        assert done.code == 7, done
        assert re.search(r"No space left on device|quota exceeded", done.err)

        stage.good("run", "-d", "--name", "web", "--storage-opt", "size=8m", IMAGE, "sleep", "100000")
        assert re.search(r" web +[\d.]+ (Ki)?B of 8\.0 MiB +\d+\n", stage.good("ps", "--size"))
        (listed,) = json.loads(stage.good("ps", "--size", "--json"))
        assert (listed["limit-bytes"], listed["limit-inodes"]) == (8 * MIB, None)
        assert "bytes" not in json.loads(stage.good("ps", "--json"))[0]
        stage.good("stop", "--time", "0", "web")
        store.wipe()
        assert stage.leftovers() == []


def test_without_pyroute2_events_says_what_to_install(limited: Limited) -> None:
    script = (
        "import sys; sys.modules['pyroute2'] = None; from hostspec.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", script, *limited.command[len(COMMAND) :], "events"]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "install hostspec[run]" in done.stderr


def test_events_refuses_a_store_whose_containers_have_no_limits(ext4_directory: str) -> None:
    words = ("-g", f"{ext4_directory}/graph", "-R", f"{ext4_directory}/run", "-s", "vfs", "events")
    done = subprocess.run([*COMMAND, *words], capture_output=True, env=ENVIRONMENT, text=True, check=False)
    assert done.returncode == 1
    assert "no limits are kept at" in done.stderr


@pytest.mark.parametrize("driver", ["btrfs", "overlay"])
def test_events_says_that_btrfs_sends_no_warnings(driver: str, btrfs_directory: str) -> None:
    words = ("-g", f"{btrfs_directory}/graph", "-R", f"{btrfs_directory}/run", "-s", driver, "events")
    done = subprocess.run([*COMMAND, *words], capture_output=True, env=ENVIRONMENT, text=True, check=False)
    assert done.returncode == 1
    assert "sends no quota warnings; ext4 and XFS do" in done.stderr
