from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.idmapped import idmapped_clone
from hostspec.kernel.mountfds import move_mount
from hostspec.kernel.mountinfo import mount_table
from hostspec.kernel.mounts import mount, unmount, unmount_all
from hostspec.kernel.usernamespaces import user_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

MAP = IdMap([(0, 100_000, 1000), (1000, 300_000, 10)], [(0, 200_000, 65_536)])


@pytest.fixture(params=["ext4_directory", "xfs_directory", "btrfs_directory"])
def directory(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    os.chown(found, 0, 0)
    for name, uid, gid in (("one", 1, 2), ("second range", 1003, 0), ("outside", 5000, 70_000)):
        path = f"{found}/{name}"
        Path(path).touch()
        os.chown(path, uid, gid)
    return found


def _owners(clone: int) -> dict[str, tuple[int, int]]:
    found = {name: os.stat(name, dir_fd=clone) for name in (".", "one", "second range", "outside")}
    return {name: (each.st_uid, each.st_gid) for name, each in found.items()}


def test_a_clone_shows_mapped_owners_and_leaves_the_original_alone(directory: str) -> None:
    overflow = 65_534
    clone = idmapped_clone(directory, user_namespace(MAP))
    try:
        assert _owners(clone) == {
            ".": (100_000, 200_000),
            "one": (100_001, 200_002),
            "second range": (300_003, 200_000),
            "outside": (overflow, overflow),
        }
    finally:
        os.close(clone)
    assert os.stat(f"{directory}/one").st_uid == 1


def test_a_clone_is_in_no_mount_table(directory: str) -> None:
    before = mount_table()
    clone = idmapped_clone(directory, user_namespace(MAP))
    during = mount_table()
    os.close(clone)
    assert during == before


def test_a_clone_can_be_made_of_a_descriptor_and_moved_into_the_tree(directory: str) -> None:
    os.mkdir(f"{directory}/place")
    original = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    clone = idmapped_clone(original, user_namespace(MAP), read_only=True)
    move_mount(clone, f"{directory}/place")
    os.close(original)
    os.close(clone)
    try:
        assert os.stat(f"{directory}/place/one").st_uid == 100_001
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(f"{directory}/place/new")
    finally:
        unmount(f"{directory}/place")


def test_what_the_mapped_root_makes_through_a_clone_belongs_to_root_on_disk(directory: str) -> None:
    clone = idmapped_clone(directory, user_namespace(MAP))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(200_000, 200_000, 200_000)
            os.setresuid(100_000, 100_000, 100_000)
            os.mkdir("made", dir_fd=clone)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(clone)
    made = os.stat(f"{directory}/made")
    assert (made.st_uid, made.st_gid) == (0, 0)


def test_the_hosts_root_cannot_write_through_a_clone_that_does_not_map_it(directory: str) -> None:
    clone = idmapped_clone(directory, user_namespace(MAP))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            os.mkdir("made", dir_fd=clone)
        assert caught.value.errno == errno.EOVERFLOW
    finally:
        os.close(clone)


def test_a_recursive_clone_maps_the_mounts_below_too(directory: str) -> None:
    os.mkdir(f"{directory}/below")
    mount("none", f"{directory}/below", "tmpfs", data="mode=755")
    os.chown(f"{directory}/below", 7, 7)
    try:
        clone = idmapped_clone(directory, user_namespace(MAP), recursive=True)
        assert os.stat("below", dir_fd=clone).st_uid == 100_007
        os.close(clone)
    finally:
        unmount_all(directory)


def test_a_file_system_that_cannot_map_ids_is_refused_and_named() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Invalid argument") as caught:
        idmapped_clone("/proc", user_namespace(MAP))
    assert caught.value.filename == "/proc"
    assert set(os.listdir("/proc/self/fd")) <= before
