from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostspec.kernel.resolve import has_openat2, open_in_root, open_in_root_by_walking, open_parent

Opener = Callable[[int, str, int, int], int]
Outcome = tuple[str, int, int]

WAYS = pytest.mark.parametrize("opener", [open_in_root, open_in_root_by_walking])

_PATIENCE_SECONDS = 120

_SWAP_FOR_EVER = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    os.rename("inside", "aside")
    os.symlink("..", "inside")
    os.unlink("inside")
    os.rename("aside", "inside")
"""

_name = st.sampled_from(["a", "b", "c"])
_step = st.one_of(_name, st.sampled_from([".", "..", ""]))
_path = st.builds(
    lambda start, steps, end: start + "/".join(steps) + end,
    st.sampled_from(["", "", "/"]),
    st.lists(_step, min_size=1, max_size=5),
    st.sampled_from(["", "", "/"]),
).filter(bool)
_wandering_path = st.lists(st.sampled_from(["a", "b", "..", ".."]), min_size=2, max_size=8).map("/".join)
_place = st.lists(_name, min_size=1, max_size=3).map("/".join)
_entry = st.tuples(_place, st.one_of(st.just("directory"), st.just("file"), _path.map("link:".__add__)))
_tree = st.lists(_entry, max_size=12)

_LOOKING = st.sampled_from(
    [
        os.O_PATH,
        os.O_PATH | os.O_NOFOLLOW,
        os.O_RDONLY,
        os.O_RDONLY | os.O_DIRECTORY,
        os.O_RDONLY | os.O_NOFOLLOW,
        os.O_RDWR,
        os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY,
    ]
)
_MAKING = st.sampled_from(
    [
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW,
        os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    ]
)


def _build(root: str, tree: list[tuple[str, str]]) -> None:
    """Make as much of a tree as contradicts nothing, without ever following a link."""
    for place, what in tree:
        path = os.path.join(root, place)
        parents = [os.path.join(root, *place.split("/")[:depth]) for depth in range(place.count("/") + 1)]
        if os.path.lexists(path) or not all(
            stat.S_ISDIR(os.lstat(each).st_mode) for each in parents if os.path.lexists(each)
        ):
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if what == "directory":
            os.mkdir(path)
        elif what == "file":
            Path(path).write_text(place)
        else:
            os.symlink(what.removeprefix("link:"), path)


def _outcome(opening: Callable[[], int]) -> Outcome:
    """Say what an opening led to: a file, known by its inode, or an error number."""
    try:
        descriptor = opening()
    except OSError as error:
        return errno.errorcode[error.errno or 0], 0, 0
    found = os.fstat(descriptor)
    os.close(descriptor)
    return "opened", found.st_dev, found.st_ino


def _opened_after_chroot(root: str, queries: list[tuple[str, int]]) -> list[Outcome]:
    """Ask the kernel what the paths lead to for a process whose root directory this really is."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(root)
            os.chdir("/")
            outcomes = [_outcome(lambda q=query: os.open(q[0], q[1], 0o600)) for query in queries]  # type: ignore[misc]
            os.write(writing, pickle.dumps(outcomes))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        answers: list[Outcome] = pickle.load(answer)  # noqa: S301 - from our own child
    os.waitpid(child, 0)
    return answers


def _opened_by(opener: Opener, root: str, queries: list[tuple[str, int]]) -> list[Outcome]:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return [_outcome(lambda q=query: opener(root_fd, q[0], q[1], 0o600)) for query in queries]  # type: ignore[misc]
    finally:
        os.close(root_fd)


def _listing(root: str) -> list[tuple[str, int, int]]:
    entries = [
        os.path.join(directory, name)
        for directory, directories, files in os.walk(root)
        for name in (*directories, *files)
    ]
    return sorted((os.path.relpath(e, root), os.lstat(e).st_mode, os.lstat(e).st_size) for e in entries)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")
@settings(max_examples=150, deadline=None)
@given(tree=_tree, queries=st.lists(st.tuples(_path, _LOOKING), min_size=1, max_size=12))
def test_both_ways_open_what_a_chrooted_process_would_open(
    tree: list[tuple[str, str]], queries: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        _build(root, tree)
        expected = _opened_after_chroot(root, queries)
        assert _opened_by(open_in_root_by_walking, root, queries) == expected
        assert _opened_by(open_in_root, root, queries) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")
@settings(max_examples=100, deadline=None)
@given(tree=_tree, query=st.tuples(_path, _MAKING))
def test_both_ways_make_the_file_that_a_chrooted_process_would_make(
    tree: list[tuple[str, str]], query: tuple[str, int]
) -> None:
    with tempfile.TemporaryDirectory() as above:
        ended = []
        for way in ("chroot", "openat2", "walk"):
            root = os.path.join(above, way)
            os.mkdir(root)
            _build(root, tree)
            if way == "chroot":
                outcome = _opened_after_chroot(root, [query])[0]
            else:
                opener = open_in_root if way == "openat2" else open_in_root_by_walking
                outcome = _opened_by(opener, root, [query])[0]
            ended.append((outcome[0], _listing(root)))
        assert ended[0] == ended[1]
        assert ended[0] == ended[2]


@settings(max_examples=200, deadline=None)
@given(tree=_tree, path=_wandering_path)
def test_parents_are_made_inside_or_not_at_all(tree: list[tuple[str, str]], path: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        root = os.path.join(os.path.realpath(above), "root")
        os.mkdir(root)
        _build(root, tree)
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            descriptor, name = open_parent(root_fd, path, create_mode=0o700)
        except OSError:
            pass
        else:
            assert f"{os.readlink(f'/proc/self/fd/{descriptor}')}/".startswith(f"{root}/")
            assert name not in ("", "..")
            os.close(descriptor)
        finally:
            os.close(root_fd)
        assert os.listdir(above) == ["root"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/up").symlink_to("../../..")
    (tmp_path / "root/secret-by-name").symlink_to(tmp_path / "secret")
    (tmp_path / "root/loop").symlink_to("loop")
    descriptor = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.skipif("HOSTSPEC_NO_OPENAT2" in os.environ, reason="it is switched off for this run")
def test_this_kernel_is_tested_with_openat2() -> None:
    assert has_openat2()


@WAYS
@pytest.mark.parametrize(
    "path", ["../secret", "/../secret", "sub/../../secret", "up/secret", "secret-by-name"]
)
def test_no_path_leads_outside(root: int, opener: Opener, path: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        opener(root, path, os.O_RDONLY, 0)
    assert caught.value.filename == path


@WAYS
def test_a_link_to_itself_is_an_error(root: int, opener: Opener) -> None:
    with pytest.raises(OSError, match="Too many levels"):
        opener(root, "loop/below", os.O_PATH, 0)


@WAYS
@pytest.mark.parametrize(("links", "opens"), [(40, True), (41, False)])
def test_forty_links_are_followed_and_no_more(root: int, opener: Opener, links: int, opens: bool) -> None:
    os.symlink("sub", "link-1", dir_fd=root)
    for number in range(2, links + 1):
        os.symlink(f"link-{number - 1}", f"link-{number}", dir_fd=root)
    outcome = _outcome(lambda: opener(root, f"link-{links}", os.O_PATH, 0))
    assert outcome[0] == ("opened" if opens else "ELOOP")


@WAYS
def test_an_absolute_link_made_through_the_root_creates_inside(root: int, opener: Opener) -> None:
    os.symlink("/sub/made", "dangling", dir_fd=root)
    os.close(opener(root, "dangling", os.O_CREAT | os.O_RDWR, 0o640))
    assert stat.S_IMODE(os.stat("sub/made", dir_fd=root).st_mode) == 0o640


@WAYS
def test_names_that_are_no_utf8_are_found(root: int, opener: Opener) -> None:
    name = os.fsdecode(b"\xff\xfe")
    os.mkdir(name, dir_fd=root)
    os.close(opener(root, name, os.O_PATH, 0))


@WAYS
@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, ""])
def test_paths_that_are_none_are_refused(root: int, opener: Opener, path: str) -> None:
    with pytest.raises((OSError, ValueError)):
        opener(root, path, os.O_PATH, 0)


@WAYS
def test_descriptors_are_closed_on_exec_and_none_is_lost(root: int, opener: Opener) -> None:
    before = set(os.listdir("/proc/self/fd"))
    descriptor = opener(root, "sub", os.O_RDONLY, 0)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    for path in ("up/up/sub/../missing/x", "loop", "secret-by-name/x", "sub/../sub/."):
        _outcome(lambda path=path: opener(root, path, os.O_PATH, 0))  # type: ignore[misc]
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_directory_swapped_for_a_link_meanwhile_never_leads_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "inside/file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    swapper = subprocess.Popen([sys.executable, "-c", _SWAP_FOR_EVER, root], stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    swapper.stdout.readline()
    root_fd = os.open(root, os.O_PATH)
    read: set[bytes] = set()
    tries, end = 0, time.monotonic() + _PATIENCE_SECONDS
    try:
        # As often as it takes to meet the directory itself, where the other process seldom gets to run.
        while (tries := tries + 1) <= 3000 or (not read and time.monotonic() < end):
            try:
                descriptor = open_in_root_by_walking(root_fd, "inside/file", os.O_RDONLY)
            except OSError:
                continue
            read.add(os.read(descriptor, 10))
            os.close(descriptor)
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
        os.close(root_fd)
    assert read == {b"inside"}


@pytest.mark.parametrize("switched_off", ["", "1"])
def test_openat2_can_be_switched_off_by_the_environment(switched_off: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "from hostspec.kernel.resolve import has_openat2; print(has_openat2())"],
        env={**os.environ, "HOSTSPEC_NO_OPENAT2": switched_off},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == str(not switched_off)


@pytest.mark.parametrize("path", ["new/../../evil/name", "new/../name", "../new/../../../evil/name"])
def test_what_is_missing_has_nothing_above_it(root: int, tmp_path: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        open_parent(root, path, create_mode=0o755)
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub/name", ("sub", "name")),
        ("/sub/name//", ("sub", "name")),
        ("name", (".", "name")),
        ("up/sub/name", ("sub", "name")),
        ("/", (".", ".")),
        (".", (".", ".")),
        ("./", (".", ".")),
    ],
)
def test_the_parent_of_a_path_is_opened(root: int, path: str, expected: tuple[str, str]) -> None:
    descriptor, name = open_parent(root, path)
    assert os.path.samestat(os.fstat(descriptor), os.stat(expected[0], dir_fd=root))
    assert name == expected[1]
    os.close(descriptor)


def test_a_path_that_ends_with_dots_has_no_last_component(root: int) -> None:
    with pytest.raises(OSError, match=r"ends with '\.\.'"):
        open_parent(root, "sub/..")


def test_missing_parents_are_made_only_where_asked_and_inside(root: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_parent(root, "up/new/deep/name")
    descriptor, name = open_parent(root, "up/new/deep/name", create_mode=0o711)
    os.close(descriptor)
    assert name == "name"
    assert stat.S_IMODE((tmp_path / "root/new/deep").stat().st_mode) == 0o711
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def test_a_link_that_leads_nowhere_is_no_parent(root: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Not a directory"):
        open_parent(root, "secret-by-name/name", create_mode=0o755)
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    deep = "/".join("d" * 300)
    try:
        os.makedirs(tmp_path / deep)
        os.close(open_in_root_by_walking(root, f"{deep}/{'../' * 300}d", os.O_PATH))
    finally:
        os.close(root)
        shutil.rmtree(tmp_path / "d")
