"""A walk visits every directory once, and keeps few of them open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Lock

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


def test_a_walk_makes_do_with_the_threads_that_it_gets() -> None:
    seen = Visited()
    with no_more_threads():
        walk(Wide(seen), threads=4)
    assert set(seen.visits.values()) == {1}
    assert len(seen.visits) == 1 + 2 * WIDE
    assert seen.still_open == 0
