from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostspec.kernel.filelocks import lock, locked_elsewhere, unlock

_HOLD_CLASSIC_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX if sys.argv[2] == "exclusive" else fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _classic_lock_of_another_process(path: Path, kind: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_CLASSIC_LOCK, path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.lock"
    path.touch()
    return path


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("theirs", "exclusive", "granted"),
    [
        ("exclusive", True, False),
        ("exclusive", False, False),
        ("shared", True, False),
        ("shared", False, True),
    ],
)
def test_a_classic_record_lock_of_another_process_is_respected(
    path: Path, theirs: str, exclusive: bool, granted: bool
) -> None:
    with _opened(path) as descriptor:
        with _classic_lock_of_another_process(path, theirs):
            assert locked_elsewhere(descriptor, exclusive=exclusive) is not granted
            assert lock(descriptor, exclusive=exclusive, wait=False) is granted
        assert lock(descriptor, exclusive=exclusive, wait=False)


def test_a_classic_record_lock_is_refused_while_ours_is_held(path: Path) -> None:
    with _opened(path) as ours, open(path, "r+b") as theirs:
        lock(ours, exclusive=True)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlock(ours)
        fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_openings_in_one_process_exclude_each_other(path: Path) -> None:
    with _opened(path) as one, _opened(path) as other:
        assert lock(one, exclusive=True, wait=False)
        assert not lock(other, exclusive=True, wait=False)
        assert not lock(other, exclusive=False, wait=False)
        assert lock(one, exclusive=False, wait=False)
        assert lock(other, exclusive=False, wait=False)


def test_closing_another_opening_of_the_file_keeps_the_lock(path: Path) -> None:
    with _opened(path) as descriptor, _opened(path) as other:
        lock(descriptor, exclusive=True)
        with _opened(path):
            pass
        assert not lock(other, exclusive=True, wait=False)


def test_a_waiting_thread_lets_others_run_and_gets_the_lock_when_it_is_free(path: Path) -> None:
    with _opened(path) as one, _opened(path) as other:
        lock(one, exclusive=True)
        got_it = threading.Event()

        def wait() -> None:
            lock(other, exclusive=True)
            got_it.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got_it.wait(0.05)
        unlock(one)
        assert got_it.wait(60)
        waiting.join()


def _lock_with_alarm(fd: int) -> None:
    # On a busy machine the alarm may come before the wait has begun.
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    lock(fd, exclusive=True)


def test_a_signal_handler_that_raises_ends_the_wait(path: Path) -> None:
    class _AlarmError(Exception):
        pass

    def ring(*_: object) -> None:
        raise _AlarmError

    with _opened(path) as one, _opened(path) as other:
        lock(one, exclusive=True)
        before = signal.signal(signal.SIGALRM, ring)
        try:
            with pytest.raises(_AlarmError):
                _lock_with_alarm(other)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_an_exclusive_lock_needs_a_descriptor_open_for_writing(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            lock(descriptor, exclusive=True, wait=False)
    finally:
        os.close(descriptor)
