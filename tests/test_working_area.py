from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.mountinfo import mount_points
from hostspec.working_area import WorkingArea, _leads_to


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def _on_disk(home: Path) -> list[str]:
    """Return what is in the root of the areas, without the random part of its names."""
    names = os.listdir(home / "tempdirs") if (home / "tempdirs").exists() else []
    return sorted(name[: name.rindex("-") + 1] for name in names)


def _lock_of(area: WorkingArea) -> str:
    directory, name = os.path.split(area.path)
    return os.path.join(directory, name.replace("temp-dir-", "lock-"))


def _in_another_process(home: Path, program: str) -> subprocess.Popen[bytes]:
    """Run a program that knows its ``area``, and wait for its first line."""
    prelude = (
        "import os, sys\nfrom hostspec.working_area import WorkingArea\narea = WorkingArea(sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", prelude + program + "\nprint(flush=True); sys.stdin.read()", home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_nothing_is_on_disk_before_the_first_use_and_after_closing(home: Path) -> None:
    area = WorkingArea(str(home))
    assert not area.has("layer")
    assert area.reclaim() == 0
    area.close()
    assert os.listdir(home) == []
    os.mkdir(area.staged("layer"))
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    area.close()
    assert _on_disk(home) == []


def test_the_names_and_modes_are_those_of_the_go_library(home: Path) -> None:
    area = WorkingArea(str(home))
    path = area.path
    assert os.path.dirname(path) == str(home / "tempdirs")
    assert os.path.basename(path).startswith("temp-dir-")
    assert os.stat(path).st_mode & 0o7777 == os.stat(home / "tempdirs").st_mode & 0o7777 == 0o700
    assert os.stat(_lock_of(area)).st_mode & 0o7777 == 0o600
    assert os.stat(_lock_of(area)).st_size == 0
    area.close()


def test_a_live_area_refuses_the_lock_that_the_go_library_tries(home: Path) -> None:
    area = WorkingArea(str(home))
    with open(_lock_of(area), "r+b") as lock_file:
        with pytest.raises(BlockingIOError):
            fcntl.lockf(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(area.path, home / "moved")
        area.close()
        # Deleted before it was let go, hence never to be found free by its name.
        assert os.fstat(lock_file.fileno()).st_nlink == 0
        fcntl.lockf(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_area_that_the_go_library_holds_is_left_alone_until_it_lets_go(home: Path) -> None:
    (home / "tempdirs/temp-dir-123").mkdir(parents=True)
    (home / "tempdirs/temp-dir-123/0-file").write_text("content")
    (home / "tempdirs/lock-123").touch()
    program = (
        "import fcntl\n"
        "file = open(sys.argv[1] + '/tempdirs/lock-123', 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
    )
    process = _in_another_process(home, program)
    area = WorkingArea(str(home))
    assert area.reclaim() == 0
    assert (home / "tempdirs/temp-dir-123/0-file").exists()
    _kill(process)
    assert area.reclaim() > 0
    assert _on_disk(home) == []


@pytest.mark.parametrize("half", ["lock-123", "temp-dir-123"])
def test_half_an_area_is_cleared_too(home: Path, half: str) -> None:
    (home / "tempdirs").mkdir()
    if half.startswith("lock"):
        (home / "tempdirs" / half).touch()
    else:
        (home / "tempdirs" / half / "layers" / "some layer").mkdir(parents=True)
    WorkingArea(str(home)).reclaim()
    assert _on_disk(home) == []


def test_other_files_beside_the_areas_stay(home: Path) -> None:
    (home / "tempdirs").mkdir()
    (home / "tempdirs/something else").touch()
    WorkingArea(str(home)).reclaim()
    assert os.listdir(home / "tempdirs") == ["something else"]


def test_a_layer_being_made_is_known_to_its_process_only(home: Path) -> None:
    area, other = WorkingArea(str(home)), WorkingArea(str(home))
    assert not area.has("layer")
    os.mkdir(area.staged("layer"))
    assert area.has("layer")
    assert not other.has("layer")
    os.rename(area.staged("layer"), home / "layer")
    assert not area.has("layer")
    area.close()
    assert (home / "layer").exists()


@pytest.mark.parametrize("layer_id", ["", ".", "..", "a/b", "/", "a\0b"])
def test_an_id_that_is_no_file_name_is_refused(home: Path, layer_id: str) -> None:
    area = WorkingArea(str(home))
    with pytest.raises(InvalidRequest, match="file name"):
        area.staged(layer_id)
    assert not area.has(layer_id)
    assert os.listdir(home) == []


@pytest.mark.parametrize("layer_id", ["0-layer", "layers", "lock-1", "\udcff", "ä b"])
def test_any_file_name_is_an_id(home: Path, layer_id: str) -> None:
    area = WorkingArea(str(home))
    os.mkdir(area.staged(layer_id))
    (home / layer_id).mkdir()
    area.put_aside(str(home / layer_id))
    area.reclaim()
    assert area.has(layer_id)
    assert os.listdir(home) == ["tempdirs"]
    area.close()


def test_what_is_put_aside_is_gone_at_once_and_deleted_later(home: Path) -> None:
    area = WorkingArea(str(home))
    for name in ("one", "two"):
        (home / name).mkdir()
        (home / name / "file").write_bytes(os.urandom(100_000))
    placed = [area.put_aside(str(home / name)) for name in ("one", "two")]
    assert [os.path.basename(path) for path in placed] == ["0-one", "1-two"]
    assert os.listdir(home) == ["tempdirs"]
    assert all(map(os.path.isdir, placed))
    assert area.reclaim() >= 200_000
    assert not any(map(os.path.exists, placed))
    area.close()


def test_what_cannot_be_put_aside_is_where_it_was(home: Path) -> None:
    area = WorkingArea(str(home))
    with pytest.raises(FileNotFoundError):
        area.put_aside(str(home / "missing"))
    assert area.reclaim() == 0
    area.close()


def test_a_staged_layer_can_be_abandoned(home: Path) -> None:
    area = WorkingArea(str(home))
    os.mkdir(area.staged("layer"))
    area.put_aside(area.staged("layer"))
    assert not area.has("layer")
    area.reclaim()
    assert os.listdir(os.path.join(area.path, "layers")) == []
    area.close()


def test_the_area_of_a_process_that_was_killed_is_cleared_by_the_next(home: Path) -> None:
    process = _in_another_process(home, "os.makedirs(area.staged('layer') + '/deep')")
    area = WorkingArea(str(home))
    assert area.reclaim() == 0
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    _kill(process)
    assert area.reclaim() > 0
    assert _on_disk(home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_a_dead_process_left_mounted_is_unmounted_and_not_emptied(home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("content")
    program = (
        "from hostspec.kernel.mounts import bind\n"
        "os.makedirs(area.staged('layer') + '/merged'); "
        f"bind({str(precious)!r}, area.staged('layer') + '/merged')"
    )
    process = _in_another_process(home, program)
    assert len(mount_points(str(home))) == 1
    _kill(process)
    WorkingArea(str(home)).reclaim()
    assert mount_points(str(home)) == []
    assert (precious / "file").read_text() == "content"
    assert _on_disk(home) == []


def test_a_forked_child_owns_nothing_and_leaves_the_parents_area_locked(home: Path) -> None:
    area = WorkingArea(str(home))
    os.mkdir(area.staged("layer"))
    (home / "doomed").mkdir()
    aside = area.put_aside(str(home / "doomed"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            knows_nothing = not area.has("layer") and area.reclaim() == 0 and os.path.isdir(aside)
            os.mkdir(area.staged("layer"))
            status = 0 if knows_nothing else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # What the child made is dead, what the parent made is alive.
    assert _on_disk(home) == ["lock-", "lock-", "temp-dir-", "temp-dir-"]
    WorkingArea(str(home)).reclaim()
    assert area.has("layer")
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    area.close()


def test_the_area_dies_with_its_process_although_a_forked_child_lives_on(home: Path) -> None:
    program = (
        "area.path\n"
        "import time\n"
        "reading, writing = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0: os.write(writing, b'!'); time.sleep(60); os._exit(0)\n"
        "os.read(reading, 1)\n"
        "open(sys.argv[1] + '/child', 'w').write(str(child))\n"
    )
    process = _in_another_process(home, program)
    child = int((home / "child").read_text())
    try:
        process.kill()
        process.wait()
        WorkingArea(str(home)).reclaim()
        assert _on_disk(home) == []
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_fork_while_a_thread_clears_a_dead_area_inherits_no_lock(home: Path) -> None:
    (home / "tempdirs/temp-dir-123/0-slow").mkdir(parents=True)
    deleting, proceed = threading.Event(), threading.Event()

    def delete(path: str) -> None:
        deleting.set()
        proceed.wait(60)
        os.rmdir(path)

    area = WorkingArea(str(home), delete=delete)
    thread = threading.Thread(target=area.reclaim)
    thread.start()
    assert deleting.wait(60)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            opened = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            targets = [os.readlink(path) for path in opened if os.path.lexists(path)]
            status = 1 if any("/lock-" in target for target in targets) else 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    proceed.set()
    thread.join()
    assert status == 0
    assert _on_disk(home) == []


def test_an_area_that_nobody_refers_to_any_more_counts_as_dead(home: Path) -> None:
    area = WorkingArea(str(home))
    os.mkdir(area.staged("layer"))
    del area
    gc.collect()
    WorkingArea(str(home)).reclaim()
    assert _on_disk(home) == []


def test_an_area_can_be_used_again_after_closing(home: Path) -> None:
    area = WorkingArea(str(home))
    first = area.path
    area.close()
    area.close()
    assert area.path != first
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    area.close()


def test_an_area_that_somebody_deleted_is_made_anew(home: Path) -> None:
    area = WorkingArea(str(home))
    first = area.path
    shutil.rmtree(home / "tempdirs")
    os.mkdir(area.staged("layer"))
    assert area.path != first
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    area.close()


def test_a_lock_counts_only_while_its_name_leads_to_it(home: Path) -> None:
    path = str(home / "lock-1")
    with open(path, "w") as opened:
        assert _leads_to(path, opened.fileno())
        os.unlink(path)
        assert not _leads_to(path, opened.fileno())
        Path(path).touch()
        assert not _leads_to(path, opened.fileno())


def test_threads_share_one_area_and_every_number_is_used_once(home: Path) -> None:
    area = WorkingArea(str(home))
    barrier = threading.Barrier(8)
    paths: list[str] = []

    def work(number: int) -> None:
        barrier.wait()
        paths.append(area.path)
        for each in range(20):
            (home / f"{number}-{each}").mkdir()
            area.put_aside(str(home / f"{number}-{each}"))
            area.reclaim()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    area.reclaim()
    assert len(paths) == 8
    assert len(set(paths)) == 1
    assert os.listdir(area.path) == []
    area.close()


def test_processes_that_make_use_kill_and_reclaim_at_once_lose_and_leave_nothing(home: Path) -> None:
    program = (
        "import random\n"
        "for number in range(60):\n"
        "    os.mkdir(area.staged('layer')); other = WorkingArea(sys.argv[1]); other.reclaim()\n"
        "    assert area.has('layer'), 'a live layer was deleted'\n"
        "    if random.random() < 0.3: area._claimed.release(); area._claimed = None\n"
        "    else: area.close()\n"
        "print('well', flush=True)\n"
    )
    prelude = (
        "import os, sys\nfrom hostspec.working_area import WorkingArea\narea = WorkingArea(sys.argv[1])\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", prelude + program, home], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    answers = [process.communicate()[0] for process in processes]
    assert answers == [b"well\n"] * 4
    WorkingArea(str(home)).reclaim()
    assert _on_disk(home) == []


def test_deleting_is_done_by_the_drivers_own_way(home: Path) -> None:
    deleted: list[str] = []

    def delete(path: str) -> None:
        deleted.append(os.path.basename(path))
        shutil.rmtree(path, ignore_errors=True)

    process = _in_another_process(home, "os.mkdir(area.staged('dead'))")
    _kill(process)
    area = WorkingArea(str(home), delete=delete)
    (home / "aside").mkdir()
    area.put_aside(str(home / "aside"))
    os.mkdir(area.staged("unfinished"))
    assert area.reclaim() == 0
    area.close()
    assert deleted == ["0-aside", "dead", "unfinished"]
    assert _on_disk(home) == []


def _refuse(name: str, delete: Callable[[str], int]) -> Callable[[str], int]:
    def delete_unless_refused(path: str) -> int:
        if os.path.basename(path).endswith(name):
            raise PermissionError(f"{name} cannot be deleted")
        return delete(path)

    return delete_unless_refused


def test_a_failure_does_not_keep_the_rest_and_is_tried_again(home: Path) -> None:
    area = WorkingArea(str(home), delete=_refuse("stubborn", delete_tree))
    for name in ("stubborn", "meek"):
        (home / name).mkdir()
        area.put_aside(str(home / name))
    with pytest.raises(PermissionError, match="stubborn"):
        area.reclaim()
    assert os.listdir(area.path) == ["0-stubborn"]
    with pytest.raises(PermissionError, match="stubborn"):
        area.close()
    assert _on_disk(home) == ["lock-", "temp-dir-"]
    assert WorkingArea(str(home)).reclaim() > 0
    assert _on_disk(home) == []


def test_an_ordinary_exit_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import os, sys; from hostspec.working_area import WorkingArea; "
        "area = WorkingArea(sys.argv[1]); os.mkdir(area.staged('abandoned'))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert os.listdir(tmp_path / "tempdirs") == []
