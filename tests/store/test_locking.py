from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hostspec.store.format.locking import TOKEN_SIZE, LockFile, OccasionLocks

TRY_RECORD_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, getattr(fcntl, sys.argv[2]) | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(1)
"""


def record_lock_is_free(path: str, kind: str = "LOCK_EX") -> bool:
    """Try to get the kind of lock that the Go library takes."""
    return subprocess.run([sys.executable, "-c", TRY_RECORD_LOCK, path, kind], check=False).returncode == 0


@pytest.fixture
def lock(tmp_path: Path) -> LockFile:
    return LockFile(str(tmp_path / "directory/layers.lock"))


def test_an_exclusive_lock_excludes_record_locks_of_other_programs(lock: LockFile) -> None:
    with lock.exclusive():
        assert not record_lock_is_free(lock.path)
        assert not record_lock_is_free(lock.path, "LOCK_SH")
    assert record_lock_is_free(lock.path)


def test_shared_locks_go_together(lock: LockFile) -> None:
    with lock.exclusive():
        pass
    with lock.shared():
        assert record_lock_is_free(lock.path, "LOCK_SH")
        assert not record_lock_is_free(lock.path)


def test_record_locks_of_other_programs_exclude_us(lock: LockFile) -> None:
    with lock.exclusive():
        pass
    script = TRY_RECORD_LOCK + "    print(flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, lock.path, "LOCK_EX"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        got_it = threading.Event()

        def run() -> None:
            with lock.exclusive():
                got_it.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert not got_it.wait(0.1)
        other.communicate()
        thread.join()
    assert got_it.is_set()


def test_threads_exclude_each_other(lock: LockFile) -> None:
    total = 0

    def run() -> None:
        nonlocal total
        for _ in range(200):
            with lock.exclusive():
                before = total
                os.sched_yield()
                total = before + 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 800


def test_a_thread_that_locks_twice_is_told_instead_of_waiting_for_ever(lock: LockFile) -> None:
    with lock.exclusive(), pytest.raises(RuntimeError, match="locked twice"), lock.shared():
        pass
    with lock.exclusive():
        pass


def test_each_write_leaves_another_token_of_64_bytes(lock: LockFile) -> None:
    with lock.exclusive() as held:
        assert held.token() == b""
        first = held.record_write()
        second = held.record_write()
        assert held.token() == second
    assert first != second
    assert len(first) == len(second) == TOKEN_SIZE == 64
    with lock.shared() as held:
        assert held.token() == second


def test_a_forked_child_does_not_keep_the_lock(lock: LockFile) -> None:
    reading, writing = os.pipe()
    with lock.exclusive():
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    os.close(reading)
    try:
        assert record_lock_is_free(lock.path)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_child_that_was_forked_beside_a_lock_can_take_it_in_any_thread(lock: LockFile) -> None:
    """Also in a thread that looks like the parent's, which has the lock."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.exclusive():
            held.set()
            go_on.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        lock.path += "-another"  # the parent has the first one
        taken = []

        def take() -> None:
            with lock.exclusive():
                taken.append(threading.get_ident())

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        os._exit(0 if taken else 1)
    go_on.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_that_was_forked_under_a_lock_leaves_it_to_its_parent(lock: LockFile) -> None:
    with lock.exclusive():
        child = os.fork()
    if child == 0:
        os._exit(0)  # out of the block, as the parent is
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert record_lock_is_free(lock.path)


def test_reading_needs_no_lock_file_and_makes_none(lock: LockFile) -> None:
    with lock.shared() as held:
        assert held.token() == b""
    assert not os.path.exists(os.path.dirname(lock.path))


def test_a_lock_for_one_occasion_leaves_no_file(tmp_path: Path) -> None:
    locks = OccasionLocks(str(tmp_path / "locks"))
    with locks.holding("work"):
        assert len(os.listdir(tmp_path / "locks")) == 1
    assert os.listdir(tmp_path / "locks") == []


def test_a_lock_for_one_occasion_excludes_even_while_its_file_comes_and_goes(tmp_path: Path) -> None:
    locks = OccasionLocks(str(tmp_path))
    inside = 0
    most = 0

    def run() -> None:
        nonlocal inside, most
        for _ in range(100):
            with locks.holding("work"):
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_locks_of_the_dead_are_swept_and_those_of_the_living_kept(tmp_path: Path) -> None:
    locks = OccasionLocks(str(tmp_path))
    (tmp_path / "hostspec-dead").touch()
    (tmp_path / "sha256:of-somebody-else").touch()
    with locks.holding("living"):
        locks.sweep()
        assert sorted(os.listdir(tmp_path)) == ["hostspec-living", "sha256:of-somebody-else"]
    OccasionLocks(str(tmp_path / "nowhere")).sweep()


def test_others_may_read_the_lock_file(lock: LockFile) -> None:
    with lock.exclusive():
        assert os.stat(lock.path).st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
