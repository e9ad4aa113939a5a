"""Moving a tree to another ID map, on real file systems."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostspec.errors import IdNotMapped
from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.idshift import IdShift, ids_in_xattr
from hostspec.kernel.mounts import bind, mount, unmount
from hostspec.ownership import shift_tree
from hostspec.values import Progress
from tests.sample_tree import DIRECTORY_TIMES, FILE_TIMES, account, acl, capability, plant, stamp
from tests.thread_limit import no_more_threads

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")

NO_MAP = IdMap()
MAP = IdMap([(0, 100_000, 65_536)], [(0, 300_000, 65_536)])
OTHER_MAP = IdMap([(0, 500_000, 10), (10, 700_000, 60_000)], [(0, 7, 20), (20, 800_000, 5_000)])
TOP_MAP = IdMap([(0, ID_LIMIT - 2_000, 2_000)], [(0, ID_LIMIT - 3_000, 3_000)])
MOVES = [
    pytest.param(NO_MAP, MAP, id="host-to-mapped"),
    pytest.param(MAP, NO_MAP, id="mapped-to-host"),
    pytest.param(MAP, OTHER_MAP, id="mapped-to-another-with-several-ranges"),
    pytest.param(OTHER_MAP, TOP_MAP, id="mapped-to-the-last-ids"),
]
FILESYSTEMS = ["ext4", "xfs", "btrfs"]


@pytest.fixture(params=FILESYSTEMS)
def directory(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_directory")
    return found


@pytest.fixture
def tree(ext4_directory: str) -> str:
    root = os.path.join(ext4_directory, "tree")
    os.mkdir(root)
    return root


@contextmanager
def overlay(directory: str, lower: str, upper: str, *options: str) -> Iterator[str]:
    """Mount ``lower`` and ``upper``, both below ``directory``."""
    for name in (upper, f"{upper}-work", f"{upper}-merged"):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    merged = os.path.join(directory, f"{upper}-merged")
    data = f"lowerdir={directory}/{lower},upperdir={directory}/{upper},workdir={directory}/{upper}-work"
    mount("overlay", merged, "overlay", 0, ",".join([data, *options]))
    try:
        yield merged
    finally:
        unmount(merged)


# The ID maps


@given(uid=st.integers(0, 65_535), gid=st.integers(0, 65_535))
def test_an_owner_is_mapped_through_its_container_ids(uid: int, gid: int) -> None:
    assert IdShift(MAP, NO_MAP).owner(*IdShift(NO_MAP, MAP).owner(uid, gid)) == (uid, gid)
    assert IdShift(NO_MAP, MAP).owner(uid, gid) == (100_000 + uid, 300_000 + gid)


def test_an_unmapped_owner_is_an_error_that_names_path_kind_and_id() -> None:
    with pytest.raises(IdNotMapped, match="/etc/passwd: container UID 70000") as refused:
        IdShift(NO_MAP, MAP).owner(70_000, 0, "/etc/passwd")
    assert (refused.value.path, refused.value.number) == ("/etc/passwd", 70_000)
    with pytest.raises(IdNotMapped, match="/etc/group: host GID 5 "):
        IdShift(MAP, NO_MAP).owner(100_000, 5, "/etc/group")


def test_squashing_takes_the_nearest_id_inside_the_target_map_and_counts() -> None:
    gappy = IdMap([(0, 100, 10), (20, 500, 10)], [(5, 900, 1)])
    shift = IdShift(NO_MAP, gappy, squash=True)
    assert shift.owner(9, 5) == (109, 900)
    assert shift.squashed == 0
    # 12 is nearest to 9, 17 to 20, 30 to 29; 14 and 15 are told apart.
    for container_id, host_id in (
        (12, 109),
        (17, 500),
        (30, 509),
        (14, 109),
        (15, 500),
        (4_000_000_000, 509),
    ):
        assert shift.owner(container_id, 5) == (host_id, 900)
    assert shift.owner(0, 0) == (100, 900)
    assert shift.squashed == 7


def test_squashing_takes_the_lower_of_two_ids_that_are_equally_near() -> None:
    gappy = IdMap([(0, 100, 10), (11, 500, 10)])
    assert IdShift(NO_MAP, gappy, squash=True).owner(10, 0) == (109, 0)


def test_squashing_takes_the_number_of_a_host_id_that_no_container_id_has() -> None:
    shift = IdShift(MAP, OTHER_MAP, squash=True)
    assert shift.owner(12, 0) == (700_002, 7)
    assert shift.owner(100_012, 300_000) == (700_002, 7)
    assert shift.squashed == 2


def test_equal_maps_change_nothing_even_where_ids_are_outside() -> None:
    shift = IdShift(MAP, IdMap([(0, 100_000, 65_536)], [(0, 300_000, 65_536)]))
    assert shift.is_identity
    assert shift.owner(5, 6) == (5, 6)


# ACLs and capabilities


def test_an_acl_is_mapped_entry_by_entry_and_stays_sorted() -> None:
    swapped = IdMap([(0, 2_000, 1), (1, 1_000, 1)], [(0, 40, 1), (1, 30, 1)])
    before = acl({0: 6, 1: 4}, {0: 5, 1: 1})
    assert IdShift(NO_MAP, swapped).acl(before) == acl({1_000: 4, 2_000: 6}, {30: 1, 40: 5})


def test_acl_entries_squashed_into_one_grant_only_what_all_of_them_granted() -> None:
    single = IdMap([(0, 1_000, 1)], [(0, 1_000, 1)])
    before = acl({5: 6, 6: 4, 7: 7}, {8: 1, 9: 2})
    assert IdShift(NO_MAP, single, squash=True).acl(before) == acl({1_000: 4}, {1_000: 0})


def test_the_ids_in_an_attribute_are_those_that_a_map_would_change() -> None:
    name = "system.posix_acl_access"
    nothing = frozenset[int]()
    acl_ids = ids_in_xattr(name, acl(users={5: 6, 7: 4}, groups={9: 4}))
    assert acl_ids == (frozenset({5, 7}), frozenset({9}))
    assert ids_in_xattr("security.capability", capability(11)) == (frozenset({11}), nothing)
    assert ids_in_xattr("security.capability", capability(None)) == (frozenset({0}), nothing)
    assert ids_in_xattr("user.some", b"value") == ids_in_xattr(name, b"short") == (nothing, nothing)


def test_an_unmapped_id_in_an_acl_is_an_error_that_names_the_path() -> None:
    with pytest.raises(IdNotMapped, match="/srv: container GID 70000"):
        IdShift(NO_MAP, MAP).acl(acl({}, {70_000: 7}), "/srv")


@pytest.mark.parametrize("value", [b"", b"\2\0", struct.pack("<I", 1), struct.pack("<I", 2) + b"abc"])
def test_what_is_no_acl_that_we_know_stays(value: bytes) -> None:
    assert IdShift(NO_MAP, MAP).acl(value) == value


def test_version_3_capabilities_have_their_root_id_mapped() -> None:
    assert IdShift(NO_MAP, MAP).capability(capability(33)) == capability(100_033)
    assert IdShift(MAP, OTHER_MAP).capability(capability(100_033)) == capability(700_023)


def test_version_2_capabilities_stay() -> None:
    assert IdShift(NO_MAP, MAP).capability(capability()) == capability()


def test_capabilities_of_the_host_root_become_version_2_as_the_kernel_shows_them() -> None:
    assert IdShift(MAP, NO_MAP).capability(capability(100_000)) == capability()


# Trees


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_a_tree_differs_only_in_its_ids(directory: str, old: IdMap, new: IdMap) -> None:
    plant(directory, old)
    before = account(directory, old)
    shifted = shift_tree(directory, old, new)
    assert account(directory, new) == before
    assert shifted.bytes_copied == 0
    assert shifted.squashed == 0
    assert shifted.inodes == _inodes(directory)


@pytest.mark.parametrize("threads", [None, 2])
def test_without_new_threads_the_pass_does_the_same(tree: str, threads: int | None) -> None:
    plant(tree, NO_MAP)
    before = account(tree, NO_MAP)
    with no_more_threads():
        shifted = shift_tree(tree, NO_MAP, MAP, threads=threads)
    assert account(tree, MAP) == before
    assert shifted.inodes == _inodes(tree)


def _inodes(root: str) -> int:
    found = [os.lstat(root)]
    for directory, subdirectories, files in os.walk(root):
        found += [os.lstat(os.path.join(directory, name)) for name in subdirectories + files]
    return len({(each.st_dev, each.st_ino) for each in found})


@pytest.mark.parametrize("threads", [2, 5])
def test_several_threads_do_what_one_does(tree: str, threads: int) -> None:
    plant(tree, NO_MAP)
    before = account(tree, NO_MAP)
    shifted = shift_tree(tree, NO_MAP, MAP, threads=threads)
    assert account(tree, MAP) == before
    assert shifted.inodes == _inodes(tree)


def _range_starts(sizes: list[int]) -> st.SearchStrategy[list[int]]:
    """Draw where ranges of these sizes begin, disjoint, anywhere in 32 bits but 0.

    For capabilities with the root ID 0 are told as version 2, so they cannot be mapped back.
    """
    room = ID_LIMIT - sum(sizes)
    gaps = st.lists(st.integers(1, room), min_size=len(sizes), max_size=len(sizes)).map(sorted)
    return gaps.map(lambda cuts: [cut + sum(sizes[:at]) for at, cut in enumerate(cuts)])


@st.composite
def maps_of(draw: st.DrawFn, container_ids: tuple[int, ...]) -> IdMap:
    """Draw a map that covers these container IDs, in ranges and with gaps, UIDs unlike GIDs."""

    def half() -> list[tuple[int, int, int]]:
        ordered = sorted(container_ids)
        sizes = [draw(st.integers(1, min(3, after - before))) for before, after in pairwise(ordered)]
        sizes.append(draw(st.integers(1, 3)))
        hosts = draw(st.permutations(draw(_range_starts([3] * len(sizes)))))
        ranges = list(zip(ordered, hosts, sizes, strict=True))
        return draw(st.permutations(ranges))

    return IdMap(half(), half())


IDS = (0, 33, 1_000)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(old=maps_of(IDS), new=maps_of(IDS))
def test_any_map_to_any_other_and_back(tree: str, old: IdMap, new: IdMap) -> None:
    root = os.path.join(tree, str(len(os.listdir(tree))))
    os.mkdir(root)
    plant(root, old, ids=IDS)
    before = account(root, old)
    shift_tree(root, old, new)
    assert account(root, new) == before
    shift_tree(root, new, old)
    assert account(root, old) == before


def test_set_id_bits_stay_on_files_and_directories(directory: str) -> None:
    plant(directory, NO_MAP)
    shift_tree(directory, NO_MAP, MAP)
    modes = {
        name: stat.S_IMODE(os.stat(f"{directory}/{name}").st_mode)
        for name in ("bin/su", "bin/wall", "shared")
    }
    assert modes == {"bin/su": 0o4755, "bin/wall": 0o2755, "shared": 0o3775}


def test_capabilities_stay_although_chown_drops_them(directory: str) -> None:
    plant(directory, NO_MAP)
    shift_tree(directory, NO_MAP, MAP)
    assert os.getxattr(f"{directory}/bin/ping", "security.capability") == capability()
    assert os.getxattr(f"{directory}/bin/ping3", "security.capability") == capability(100_033)


def test_capabilities_with_a_root_id_are_mapped_even_where_the_owner_stays(tree: str) -> None:
    plant(tree, NO_MAP)
    gids_only = IdMap([(0, 0, 30), (33, 77, 1), (1_000, 1_000, 1)], ())
    os.chown(f"{tree}/bin/ping3", 0, 0)
    os.setxattr(f"{tree}/bin/ping3", "security.capability", capability(33))
    shift_tree(tree, NO_MAP, gids_only)
    assert os.getxattr(f"{tree}/bin/ping3", "security.capability") == capability(77)


def test_access_and_default_acls_are_mapped(directory: str) -> None:
    plant(directory, NO_MAP)
    shift_tree(directory, NO_MAP, MAP)
    mapped = acl({100_033: 6, 101_000: 4}, {300_033: 5, 301_000: 1})
    assert os.getxattr(f"{directory}/etc/acl", "system.posix_acl_access") == mapped
    assert os.getxattr(f"{directory}/etc", "system.posix_acl_access") == mapped
    assert os.getxattr(f"{directory}/etc", "system.posix_acl_default") == mapped


def test_times_of_files_and_directories_stay_to_the_nanosecond(directory: str) -> None:
    plant(directory, NO_MAP)
    shift_tree(directory, NO_MAP, MAP)
    for path, times in (
        ("/", DIRECTORY_TIMES),
        ("/etc/deep", DIRECTORY_TIMES),
        ("/etc/acl", FILE_TIMES),
        ("/x/fifo", FILE_TIMES),
    ):
        found = os.lstat(directory + path)
        assert (found.st_atime_ns, found.st_mtime_ns) == times


def test_the_root_directory_and_one_character_names_are_mapped(directory: str) -> None:
    plant(directory, NO_MAP)
    shift_tree(directory, NO_MAP, MAP)
    root, single, file = (os.stat(directory + path) for path in ("", "/x", "/e"))
    assert (root.st_uid, root.st_gid) == (100_000, 300_033)
    assert (single.st_uid, single.st_gid) == (100_000, 301_000)
    assert (file.st_uid, file.st_gid) == (100_033, 301_000)


def _plant_links(root: str, files: int) -> None:
    for place in ("one", "two", "three"):
        os.mkdir(f"{root}/{place}")
    for number in range(files):
        with open(f"{root}/one/{number}", "wb") as file:
            file.write(b"%d" % number)
        os.link(f"{root}/one/{number}", f"{root}/two/{number}")
        os.link(f"{root}/one/{number}", f"{root}/three/{number}")
    stamp(root)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thousand_files_with_three_names_each_are_mapped_once(tree: str, threads: int) -> None:
    _plant_links(tree, 1_000)
    # What is mapped twice would leave the map.
    narrow = IdMap([(0, 5, 1)], [(0, 6, 1)])
    before = account(tree, NO_MAP)
    assert shift_tree(tree, NO_MAP, narrow, threads=threads).inodes == 1_004
    assert account(tree, narrow) == before


def test_an_unmapped_id_in_the_tree_is_an_error_with_its_path(tree: str) -> None:
    plant(tree, NO_MAP)
    os.chown(f"{tree}/etc/deep/large", 70_000, 0)
    with pytest.raises(IdNotMapped, match=r"^/etc/deep/large: container UID 70000 "):
        shift_tree(tree, NO_MAP, MAP)


def test_an_unmapped_id_is_squashed_when_that_is_wanted(tree: str) -> None:
    plant(tree, NO_MAP)
    os.chown(f"{tree}/etc/deep/large", 70_000, 80_000)
    assert shift_tree(tree, NO_MAP, MAP, squash=True).squashed == 2
    found = os.stat(f"{tree}/etc/deep/large")
    assert (found.st_uid, found.st_gid) == (165_535, 365_535)


@pytest.mark.parametrize("threads", [2, 8])
def test_an_error_in_any_thread_ends_the_pass_and_is_raised_once(tree: str, threads: int) -> None:
    for number in range(300):
        os.makedirs(f"{tree}/{number % 17}/{number}")
    os.chown(f"{tree}/5/5", 70_000, 0)
    descriptors = set(os.listdir("/proc/self/fd"))
    with pytest.raises(IdNotMapped, match=r"^/5/5: "):
        shift_tree(tree, NO_MAP, MAP, threads=threads)
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_what_the_system_refuses_is_an_error_with_its_path(tree: str) -> None:
    plant(tree, NO_MAP)
    read_only = f"{tree}-read-only"
    os.mkdir(read_only)
    bind(tree, read_only, read_only=True)
    try:
        with pytest.raises(OSError, match="Read-only file system: '/'"):
            shift_tree(read_only, NO_MAP, MAP)
    finally:
        unmount(read_only)


def test_progress_counts_every_name(tree: str) -> None:
    _plant_links(tree, 400)
    told: list[Progress] = []
    shift_tree(tree, NO_MAP, MAP, progress=told.append)
    assert told[-1] == Progress(1_204, None, "files")
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert len(told) > 1


def test_what_is_mounted_below_is_left_alone_and_what_lies_beneath_is_mapped(tree: str) -> None:
    plant(tree, NO_MAP)
    elsewhere = f"{tree}-elsewhere"
    os.mkdir(elsewhere)
    Path(elsewhere, "host").touch()
    bind(elsewhere, f"{tree}/etc")
    bind(f"{elsewhere}/host", f"{tree}/e")
    try:
        shift_tree(tree, NO_MAP, MAP)
        assert os.stat(f"{tree}/etc/host").st_uid == 0
        assert os.stat(f"{tree}/e").st_uid == 0
    finally:
        unmount(f"{tree}/e")
        unmount(f"{tree}/etc")
    assert os.stat(f"{tree}/etc/deep/large").st_uid == 100_033
    assert os.stat(f"{tree}/e").st_uid == 100_033


def test_a_tree_deeper_than_the_longest_path_is_mapped(tree: str) -> None:
    names = ["d" * 200] * 40
    descriptor = os.open(tree, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    shift_tree(tree, NO_MAP, MAP)
    assert os.fstat(descriptor).st_uid == 100_000
    os.close(descriptor)


def test_nested_btrfs_subvolumes_are_part_of_the_tree(btrfs_directory: str, run: Callable[..., None]) -> None:
    plant(btrfs_directory, NO_MAP)
    run("btrfs", "subvolume", "create", f"{btrfs_directory}/nested")
    Path(btrfs_directory, "nested", "file").touch()
    shift_tree(btrfs_directory, NO_MAP, MAP)
    assert os.stat(f"{btrfs_directory}/nested").st_uid == 100_000
    assert os.stat(f"{btrfs_directory}/nested/file").st_uid == 100_000


@pytest.fixture
def run() -> Callable[..., None]:
    import subprocess  # noqa: PLC0415

    def execute(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    return execute


# Overlays


OVERLAY_OPTIONS = [
    pytest.param(("index=off", "metacopy=off"), id="plain"),
    pytest.param(("index=on", "metacopy=off"), id="index"),
    pytest.param(("index=off", "metacopy=on"), id="metacopy"),
    pytest.param(("index=on", "metacopy=on"), id="index-and-metacopy"),
    pytest.param(("index=off", "metacopy=off", "volatile"), id="volatile"),
]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
@pytest.mark.parametrize("options", OVERLAY_OPTIONS)
@pytest.mark.parametrize("threads", [1, 4])
def test_the_upper_directory_of_an_overlay_holds_the_whole_mapped_tree(
    request: pytest.FixtureRequest, filesystem: str, options: tuple[str, ...], threads: int
) -> None:
    directory: str = request.getfixturevalue(f"{filesystem}_directory")
    lower = f"{directory}/lower"
    os.mkdir(lower)
    plant(lower, NO_MAP)
    _plant_links(lower, 20)
    before = account(lower, NO_MAP)
    with overlay(directory, "lower", "upper", *options) as merged:
        _dress_root(merged, NO_MAP)
        shift_tree(merged, NO_MAP, MAP, threads=threads)
        assert account(merged, MAP) == before
    assert account(lower, NO_MAP) == before
    # As a layer it is mounted again in other ways: without an index, with the pass's upper as a lower.
    metacopy = next(option for option in options if option.startswith("metacopy"))
    with overlay(directory, f"upper:{lower}", "above", "index=off", metacopy) as merged:
        _dress_root(merged, MAP)
        assert account(merged, MAP) == before


def _dress_root(merged: str, idmap: IdMap) -> None:
    """Make a new upper directory, whose own the root is, like the root of the planted tree."""
    os.chown(merged, *idmap.to_host(0, 33))
    os.chmod(merged, 0o751)
    os.utime(merged, ns=DIRECTORY_TIMES)


def test_an_overlay_tells_how_many_bytes_it_copied_up(ext4_directory: str) -> None:
    os.mkdir(f"{ext4_directory}/lower")
    plant(f"{ext4_directory}/lower", NO_MAP)
    regular = 0
    seen: set[int] = set()
    for directory, _, files in os.walk(f"{ext4_directory}/lower"):
        for name in files:
            found = os.lstat(os.path.join(directory, name))
            if stat.S_ISREG(found.st_mode) and found.st_ino not in seen:
                seen.add(found.st_ino)
                regular += found.st_size
    with overlay(ext4_directory, "lower", "upper", "metacopy=off") as merged:
        assert shift_tree(merged, NO_MAP, MAP).bytes_copied == regular
    with overlay(ext4_directory, "lower", "stubs", "metacopy=on") as merged:
        assert shift_tree(merged, NO_MAP, MAP).bytes_copied == 0
