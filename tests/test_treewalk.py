"""A walk visits every directory once, and keeps few of them open."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from time import sleep

import pytest

from hostspec.treewalk import walk
from tests.thread_limit import no_more_threads

WIDE = 3000
THREADS = (1, 2, 4)


class Visited:
    """What is known of all directories of a tree together."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open = 0
        self.most_open = 0
        self.visits: Counter[str] = Counter()

    def opened(self) -> None:
        with self._lock:
            self._open += 1
            self.most_open = max(self.most_open, self._open)

    def visited(self, path: str) -> None:
        with self._lock:
            self.visits[path] += 1

    def closed(self) -> None:
        with self._lock:
            self._open -= 1

    @property
    def still_open(self) -> int:
        return self._open


class Wide:
    """A directory with many others, each of which has one more."""

    def __init__(self, seen: Visited, path: str = "", *, fails_at: str | None = None) -> None:
        self._seen = seen
        self._path = path
        self._fails_at = fails_at
        seen.opened()

    def visit(self) -> Sequence[str]:
        self._seen.visited(self._path)
        if self._path == self._fails_at:
            raise OSError(self._path)
        depth = self._path.count("/")
        return [str(number) for number in range(WIDE)] if depth == 0 else ["one"] * (depth == 1)

    def child(self, name: str) -> Wide:
        return Wide(self._seen, f"{self._path}/{name}", fails_at=self._fails_at)

    def close(self) -> None:
        self._seen.closed()


@pytest.mark.parametrize("threads", THREADS)
def test_each_directory_is_visited_once_and_few_are_open_at_a_time(threads: int) -> None:
    seen = Visited()
    walk(Wide(seen), threads=threads)
    assert set(seen.visits.values()) == {1}
    assert len(seen.visits) == 1 + 2 * WIDE
    assert seen.most_open <= 5 * threads
    assert seen.still_open == 0


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_closes_all_that_was_open(threads: int) -> None:
    seen = Visited()
    with pytest.raises(OSError, match="/7/one"):
        walk(Wide(seen, fails_at="/7/one"), threads=threads)
    assert seen.still_open == 0


class Moving:
    """A directory in which a file is made by way of the working directory."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def visit(self) -> Sequence[str]:
        os.chdir(self._place)
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o666))
        return []

    def child(self, name: str) -> Moving:
        return Moving(self._place / name)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("threads", THREADS)
def test_threads_apart_have_a_working_directory_and_a_mask_of_their_own(tmp_path: Path, threads: int) -> None:
    before = os.getcwd()
    walk(Moving(tmp_path), threads=threads, apart=True)
    assert os.getcwd() == before
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o666
    mask = os.umask(0o22)
    os.umask(mask)
    assert mask != 0


@pytest.mark.parametrize("threads", THREADS)
def test_threads_apart_visit_each_directory_once_too(threads: int) -> None:
    seen = Visited()
    walk(Wide(seen), threads=threads, apart=True)
    assert set(seen.visits.values()) == {1}
    assert len(seen.visits) == 1 + 2 * WIDE
    assert seen.still_open == 0


@pytest.mark.parametrize("threads", THREADS)
def test_a_walk_apart_says_so_when_there_may_be_no_thread(threads: int) -> None:
    seen = Visited()
    with no_more_threads(), pytest.raises(OSError, match="can't start new thread") as refused:
        walk(Wide(seen), threads=threads, apart=True)
    assert refused.value.errno == errno.EAGAIN
    assert not seen.visits
    assert seen.still_open == 0


class Endless(Wide):
    """A directory in which a signal comes to the process, and in which there is always another one."""

    def visit(self) -> Sequence[str]:
        super().visit()
        if not self._path:
            os.kill(os.getpid(), signal.SIGINT)
        sleep(0.001)
        return ["one"] * 20

    def child(self, name: str) -> Endless:
        return Endless(self._seen, f"{self._path}/{name}")


@pytest.mark.parametrize("apart", [False, True])
def test_a_walk_that_is_interrupted_has_stopped_in_all_threads(*, apart: bool) -> None:
    seen = Visited()
    with pytest.raises(KeyboardInterrupt):
        walk(Endless(seen), threads=3, apart=apart)
    assert seen.still_open == 0
    visits = seen.visits.total()
    sleep(0.02)
    assert seen.visits.total() == visits


def test_a_walk_apart_makes_do_with_the_threads_that_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = Thread.start, Event()

    def start_only_one(thread: Thread) -> None:
        if started.is_set():
            thread_of_the_walk[0].join(timeout=0.5)  # it has done all and waits for the others
            raise RuntimeError("can't start new thread")
        started.set()
        thread_of_the_walk.append(thread)
        start(thread)

    thread_of_the_walk: list[Thread] = []
    monkeypatch.setattr(Thread, "start", start_only_one)
    seen = Visited()
    walk(Wide(seen, "/1/one"), threads=4, apart=True)
    assert list(seen.visits) == ["/1/one"]
    assert seen.still_open == 0


def test_a_walk_makes_do_with_the_threads_that_it_gets() -> None:
    seen = Visited()
    with no_more_threads():
        walk(Wide(seen), threads=4)
    assert set(seen.visits.values()) == {1}
    assert len(seen.visits) == 1 + 2 * WIDE
    assert seen.still_open == 0
