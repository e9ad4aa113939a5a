"""Copying trees with everything that is kept about files, on real file systems."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import IdNotMapped
from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.mounts import bind, unmount
from hostspec.treecopy import copy_changes, copy_tree
from hostspec.values import Change, ChangeKind, Progress
from tests.sample_tree import DIRECTORY_TIMES, account, acl, capability, plant, stamp

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and changes owners")

NO_MAP = IdMap()
MAP = IdMap([(0, 100_000, 65_536)], [(0, 300_000, 65_536)])
TOP_MAP = IdMap([(0, ID_LIMIT - 2_000, 2_000)], [(0, 7, 20), (20, ID_LIMIT - 3_000, 3_000)])
FILESYSTEMS = ["ext4", "xfs", "btrfs"]


@pytest.fixture(params=FILESYSTEMS)
def directory(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_directory")
    return found


@pytest.fixture
def trees(directory: str) -> tuple[str, str]:
    """A planted tree, and an empty directory beside it."""
    return _trees(directory)


@pytest.fixture
def plain(ext4_directory: str) -> tuple[str, str]:
    """The same, where the file system does not matter."""
    return _trees(ext4_directory)


def _trees(directory: str) -> tuple[str, str]:
    source, target = f"{directory}/source", f"{directory}/target"
    os.mkdir(source)
    os.mkdir(target)
    plant(source, NO_MAP)
    return source, target


def test_a_copy_is_like_its_source_in_everything(trees: tuple[str, str]) -> None:
    source, target = trees
    before = account(source, NO_MAP)
    copied = copy_tree(source, target)
    assert account(target, NO_MAP) == before
    assert account(source, NO_MAP) == before
    assert copied.inodes == len({_inode(source, path) for path in before})


def _inode(root: str, path: str) -> int:
    return os.lstat(root + path).st_ino


@pytest.mark.parametrize("threads", [2, 5])
def test_several_threads_copy_what_one_does(plain: tuple[str, str], threads: int) -> None:
    source, target = plain
    before = account(source, NO_MAP)
    copy_tree(source, target, threads=threads)
    assert account(target, NO_MAP) == before


@pytest.mark.parametrize(("old", "new"), [(NO_MAP, MAP), (MAP, NO_MAP), (MAP, TOP_MAP)])
def test_a_mapped_copy_differs_only_in_its_ids(directory: str, old: IdMap, new: IdMap) -> None:
    source, target = f"{directory}/source", f"{directory}/target"
    os.mkdir(source)
    os.mkdir(target)
    plant(source, old)
    before = account(source, old)
    copy_tree(source, target, shift=IdShift(old, new))
    assert account(target, new) == before
    assert account(source, old) == before


def test_a_mapped_copy_maps_acls_and_capabilities(trees: tuple[str, str]) -> None:
    source, target = trees
    copy_tree(source, target, shift=IdShift(NO_MAP, MAP))
    mapped = acl({100_033: 6, 101_000: 4}, {300_033: 5, 301_000: 1})
    assert os.getxattr(f"{target}/etc/acl", "system.posix_acl_access") == mapped
    assert os.getxattr(f"{target}/etc", "system.posix_acl_default") == mapped
    assert os.getxattr(f"{target}/bin/ping", "security.capability") == capability()
    assert os.getxattr(f"{target}/bin/ping3", "security.capability") == capability(100_033)


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_content_is_shared_where_the_file_system_can(request: pytest.FixtureRequest, kind: str) -> None:
    source, target = _trees(request.getfixturevalue(f"{kind}_directory"))
    copied = copy_tree(source, target)
    size = sum(
        os.lstat(source + path).st_size
        for path, file in account(source, NO_MAP).items()
        if _counts(path, file.mode)
    )
    if kind == "ext4":
        assert (copied.bytes_copied, copied.bytes_reflinked) == (size, 0)
    else:
        assert (copied.bytes_copied, copied.bytes_reflinked) == (0, size)


def _counts(path: str, mode: int) -> bool:
    return stat.S_ISREG(mode) and not path.endswith("/linked")


def test_holes_stay_holes(trees: tuple[str, str]) -> None:
    source, target = trees
    copy_tree(source, target)
    subprocess.run(["sync", "-f", target], check=True)
    assert os.stat(f"{target}/x/sparse").st_size > 4 << 20
    assert os.stat(f"{target}/x/sparse").st_blocks * 512 < 1 << 20


def test_a_copy_to_another_file_system_keeps_everything_too(
    xfs_directory: str, btrfs_directory: str, ext4_directory: str
) -> None:
    plant(btrfs_directory, NO_MAP)
    os.setxattr(f"{btrfs_directory}/bin", "btrfs.compression", b"zstd")
    before = account(btrfs_directory, NO_MAP)
    del before["/bin"]
    for directory in (xfs_directory, ext4_directory):
        copy_tree(btrfs_directory, directory, shift=IdShift(NO_MAP, MAP))
        after = account(directory, MAP)
        del after["/bin"]
        assert after == before


def test_a_thousand_files_with_three_names_each_stay_linked(plain: tuple[str, str]) -> None:
    source, target = plain
    for place in ("one", "two", "three"):
        os.mkdir(f"{source}/{place}")
    for number in range(1_000):
        Path(source, "one", str(number)).write_bytes(b"%d" % number)
        os.link(f"{source}/one/{number}", f"{source}/two/{number}")
        os.link(f"{source}/one/{number}", f"{source}/three/{number}")
    stamp(source)
    before = account(source, NO_MAP)
    copy_tree(source, target, threads=3)
    assert account(target, NO_MAP) == before


def test_what_the_target_passes_on_to_its_files_is_not_kept(plain: tuple[str, str]) -> None:
    source, target = plain
    os.setxattr(target, "system.posix_acl_default", acl({5: 7}, {6: 7}))
    os.chmod(target, 0o2777)
    before = account(source, NO_MAP)
    copy_tree(source, target)
    assert account(target, NO_MAP) == before


def test_a_symbolic_link_planted_as_the_target_of_a_directory_is_not_followed(plain: tuple[str, str]) -> None:
    source, target = plain
    outside = f"{target}-outside"
    os.mkdir(outside)
    os.symlink(outside, f"{target}/bin")
    with pytest.raises(FileExistsError, match="'/bin'"):
        copy_tree(source, target)
    assert os.listdir(outside) == []


def test_an_unmapped_id_is_an_error_with_its_path(plain: tuple[str, str]) -> None:
    source, target = plain
    os.chown(f"{source}/etc/deep/large", 0, 70_000)
    with pytest.raises(IdNotMapped, match=r"^/etc/deep/large: container GID 70000 "):
        copy_tree(source, target, shift=IdShift(NO_MAP, MAP))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_full_disk_is_an_error_with_its_path(plain: tuple[str, str], small: str, threads: int) -> None:
    source, _ = plain
    descriptors = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left on device: '/") as refused:
        copy_tree(source, small, threads=threads)
    assert refused.value.errno == errno.ENOSPC
    assert set(os.listdir("/proc/self/fd")) <= descriptors


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """A directory that holds 256 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=True)
    yield str(tmp_path)
    unmount(str(tmp_path))


def test_what_is_mounted_below_the_source_is_not_copied_but_what_lies_beneath(plain: tuple[str, str]) -> None:
    source, target = plain
    before = account(source, NO_MAP)
    bind(f"{source}/bin", f"{source}/etc")
    try:
        copy_tree(source, target)
    finally:
        unmount(f"{source}/etc")
    assert account(target, NO_MAP) == before


def test_progress_counts_every_name(plain: tuple[str, str]) -> None:
    source, target = plain
    told: list[Progress] = []
    copy_tree(source, target, progress=told.append)
    assert told[-1] == Progress(len(account(source, NO_MAP)) - 1, None, "files")


# Changes


def test_changes_bring_a_tree_to_the_state_of_another(trees: tuple[str, str]) -> None:
    source, target = trees
    copy_tree(source, target, shift=IdShift(NO_MAP, MAP))
    shutil.rmtree(f"{source}/x")
    os.unlink(f"{source}/etc/linked")
    os.unlink(f"{source}/e")
    os.unlink(f"{source}/bin/su")
    os.mkdir(f"{source}/bin/su")
    Path(f"{source}/bin/su/inside").write_bytes(b"new")
    os.chown(f"{source}/bin/su", 1, 2)
    shutil.rmtree(f"{source}/empty")
    Path(f"{source}/empty").write_bytes(b"a file now")
    os.link(f"{source}/empty", f"{source}/etc/empty")
    os.setxattr(f"{source}/etc", "user.new", b"1")
    os.removexattr(f"{source}/etc", "system.posix_acl_default")
    os.utime(f"{source}/etc", ns=(5, 6))
    os.utime(f"{source}/bin", ns=(7, 8))
    os.utime(source, ns=DIRECTORY_TIMES)
    expected = account(source, NO_MAP)
    changes = [
        Change("/bin/su", ChangeKind.MODIFY),
        Change("/bin/su/inside", ChangeKind.ADD),
        Change("/e", ChangeKind.DELETE),
        Change("/empty", ChangeKind.MODIFY),
        Change("/etc", ChangeKind.MODIFY),
        Change("/etc/empty", ChangeKind.ADD),
        Change("/etc/linked", ChangeKind.DELETE),
        Change("/x", ChangeKind.DELETE),
    ]
    copied = copy_changes(source, target, changes, shift=IdShift(NO_MAP, MAP))
    assert account(target, MAP) == expected
    assert copied.inodes == 4


def test_a_changed_file_in_a_directory_with_a_default_acl_gets_none_of_it(plain: tuple[str, str]) -> None:
    source, target = plain
    copy_tree(source, target)
    Path(f"{source}/etc/new").write_bytes(b"")
    os.chmod(f"{source}/etc/new", 0o600)
    os.removexattr(f"{source}/etc/new", "system.posix_acl_access")
    os.mkdir(f"{source}/etc/new-directory")
    for name in os.listxattr(f"{source}/etc/new-directory"):
        os.removexattr(f"{source}/etc/new-directory", name)
    expected = account(source, NO_MAP)
    changes = [Change("/etc/new", ChangeKind.ADD), Change("/etc/new-directory", ChangeKind.ADD)]
    copy_changes(source, target, changes)
    assert account(target, NO_MAP) == expected


def test_changes_do_not_follow_a_symbolic_link_among_the_directories(plain: tuple[str, str]) -> None:
    source, target = plain
    outside = f"{target}-outside"
    os.mkdir(outside)
    os.symlink(outside, f"{target}/bin")
    with pytest.raises(OSError, match="'/bin/su'"):
        copy_changes(source, target, [Change("/bin/su", ChangeKind.ADD)])
    assert os.listdir(outside) == []
