from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hostspec.idmap import IdMap, IdRange
from hostspec.kernel.usernamespaces import MAX_RANGES, user_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can map IDs of others")


def _maps_seen_inside(namespace: int) -> tuple[list[IdRange], list[IdRange]]:
    """Enter a namespace with another program, and read both maps there."""
    finished = subprocess.run(
        ["nsenter", f"--user=/proc/self/fd/{namespace}", "cat", "/proc/self/uid_map", "/proc/self/gid_map"],
        pass_fds=[namespace],
        capture_output=True,
        text=True,
        check=True,
    )
    ranges = [IdRange(*map(int, line.split())) for line in finished.stdout.splitlines()]
    middle = len(ranges) // 2
    return ranges[:middle], ranges[middle:]


def test_a_namespace_has_the_map_that_was_asked_for() -> None:
    idmap = IdMap([(0, 100_000, 10), (10, 7, 1)], [(0, 300_000, 5), (7, 4_294_967_000, 200)])
    uids, gids = _maps_seen_inside(user_namespace(idmap))
    assert (uids, gids) == (list(idmap.uids), list(idmap.gids))


@pytest.mark.parametrize("missing", ["uids", "gids"])
def test_a_half_that_is_missing_maps_every_id_to_itself(missing: str) -> None:
    ranges = [(0, 500_000, 65_536)]
    idmap = IdMap(gids=ranges) if missing == "uids" else IdMap(uids=ranges)
    uids, gids = _maps_seen_inside(user_namespace(idmap))
    identity = [IdRange(0, 0, 4_294_967_295)]
    assert (uids if missing == "uids" else gids) == identity
    assert (gids if missing == "uids" else uids) == [IdRange(*ranges[0])]


def test_as_many_ranges_as_the_kernel_takes_are_taken() -> None:
    # Not adjoining, and short enough in decimal for the page that one write may have.
    ranges = [(3 * number, 3 * number + 1, 1) for number in range(MAX_RANGES)]
    uids, gids = _maps_seen_inside(user_namespace(IdMap(ranges, ranges)))
    assert uids == gids == [IdRange(*each) for each in ranges]


@pytest.mark.parametrize(("number", "step"), [(MAX_RANGES + 1, 3), (MAX_RANGES, 10_000_000)])
def test_more_ranges_or_bytes_than_the_kernel_takes_are_refused_with_the_limit(
    number: int, step: int
) -> None:
    ranges = [(step * each, step * each + 1, 1) for each in range(number)]
    with pytest.raises(OSError, match=r"UID map has \d+ ranges in \d+ bytes") as caught:
        user_namespace(IdMap(ranges))
    assert caught.value.errno == errno.E2BIG


def test_a_map_gets_one_namespace_and_equal_maps_share_it() -> None:
    one = user_namespace(IdMap([(0, 1_000_000, 10), (10, 1_000_010, 10)]))
    same = user_namespace(IdMap([(0, 1_000_000, 20)]))
    other = user_namespace(IdMap([(0, 1_000_000, 21)]))
    assert one == same != other
    assert not os.get_inheritable(one)


def test_threads_that_ask_at_once_get_the_same_namespace() -> None:
    idmap = IdMap([(0, 2_000_000, 10)])
    answers: list[int] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        answers.append(user_namespace(idmap))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_a_forked_child_makes_namespaces_of_its_own_and_keeps_those_it_has() -> None:
    known = user_namespace(IdMap([(0, 3_000_000, 10)]))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kept = user_namespace(IdMap([(0, 3_000_000, 10)])) == known
            made = user_namespace(IdMap([(0, 3_000_000, 11)]))
            status = 0 if kept and os.readlink(f"/proc/self/fd/{made}").startswith("user:") else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_namespace_whose_descriptor_was_closed_by_others_is_made_again() -> None:
    idmap = IdMap([(0, 4_000_000, 10)])
    first = user_namespace(idmap)
    # The number may be anybody's by now.
    with open(os.devnull) as impostor:
        os.dup2(impostor.fileno(), first)
        try:
            again = user_namespace(idmap)
        finally:
            os.close(first)
    assert again != first
    assert os.readlink(f"/proc/self/fd/{again}").startswith("user:")


def test_no_child_process_is_left_and_no_sigchld_handler_hears_of_it() -> None:
    heard: list[int] = []
    children = _children()
    before = signal.signal(signal.SIGCHLD, lambda number, _: heard.append(number))
    try:
        user_namespace(IdMap([(0, 5_000_000, 10)]))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heard == []
    assert _children() <= children


def _children() -> set[str]:
    """Return the IDs of this thread's child processes, among which may be some that other tests left."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def test_a_process_without_privilege_is_told_so() -> None:
    program = (
        "import os; os.setgroups([]); os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)\n"
        "try: user_namespace(IdMap([(0, 100000, 10)]))\n"
        "except PermissionError as error: print(error.strerror)\n"
    )
    imports = "from hostspec.idmap import IdMap; from hostspec.kernel.usernamespaces import user_namespace\n"
    # Everything that the program imports later must be imported while it may still read it.
    warm = "user_namespace(IdMap([(0, 200000, 10)]))\n"
    finished = subprocess.run(
        [sys.executable, "-c", imports + warm + program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("only the machine's root may set up ID maps")


def test_root_of_an_unprivileged_user_namespace_can_map_what_it_has() -> None:
    program = (
        "from hostspec.idmap import IdMap; from hostspec.kernel.usernamespaces import user_namespace\n"
        "import os; print(os.readlink(f'/proc/self/fd/{user_namespace(IdMap([(5, 0, 1)], [(6, 0, 1)]))}'))"
    )
    finished = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith("user:")
