from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from hostspec.disk_usage import content_bytes, joined, length_of, measure_tree
from hostspec.driver import GraphDriver
from hostspec.kernel.filesystems import filesystem_name
from hostspec.kernel.loop import loop_filesystem
from hostspec.kernel.reflink import reflink
from hostspec.plugins import open_driver
from hostspec.testing.requirements import require_or_skip
from hostspec.values import Change, ChangeKind, LayerRef


def test_a_tree_occupies_what_du_says(ext4_directory: str) -> None:
    root = Path(ext4_directory, "tree")
    (root / "below").mkdir(parents=True)
    (root / "file").write_bytes(os.urandom(300_000))
    os.link(root / "file", root / "below" / "link")
    os.symlink("file", root / "symlink")
    with open(root / "sparse", "wb") as sparse:
        sparse.truncate(50_000_000)
    told = subprocess.run(["du", "-s", "-B1", root], check=True, capture_output=True, text=True).stdout
    found = measure_tree(str(root), blocks_are_shared=False)
    assert (found.exclusive_bytes, found.shared_bytes) == (int(told.split()[0]), 0)
    assert found.inodes == 5


def test_what_is_deleted_while_it_is_measured_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "directory").mkdir()
    (tmp_path / "stays").write_bytes(os.urandom(10_000))
    scandir = os.scandir

    @contextmanager
    def deleting_what_it_lists(fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(fd) as entries:
            listed = list(entries)
        os.rmdir(tmp_path / "directory")
        os.unlink(tmp_path / "file")
        yield iter(listed)

    monkeypatch.setattr(os, "scandir", deleting_what_it_lists)
    found = measure_tree(str(tmp_path), blocks_are_shared=False)
    monkeypatch.undo()
    assert found == measure_tree(str(tmp_path), blocks_are_shared=False)
    assert found.inodes == 2


def test_content_that_is_deleted_before_it_is_measured_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    os.link(tmp_path / "file", tmp_path / "link")
    names = ["/file", "/gone", "/file/was a directory", "/link"]
    changes = [Change(name, ChangeKind.ADD) for name in names]
    assert content_bytes(str(tmp_path), [*changes, Change("/file", ChangeKind.DELETE)]) == 4


def test_blocks_shared_by_reflink_are_told_apart_from_own_ones(xfs_directory: str) -> None:
    own, other = Path(xfs_directory, "own"), Path(xfs_directory, "other")
    own.mkdir()
    (own / "alone").write_bytes(os.urandom(1 << 20))
    (own / "shared").write_bytes(os.urandom(2 << 20))
    with open(own / "shared", "rb") as source, open(other, "wb") as target:
        reflink(source.fileno(), target.fileno())
    found = measure_tree(str(own), blocks_are_shared=True)
    assert found.shared_bytes == 2 << 20
    assert 1 << 20 <= found.exclusive_bytes < (1 << 20) + 65_536


@given(lists(tuples(integers(0, 99), integers(1, 30))))
def test_blocks_in_several_runs_count_once(runs: list[tuple[int, int]]) -> None:
    blocks = {block for start, length in runs for block in range(start, start + length)}
    found = joined((start, start + length) for start, length in runs)
    assert {block for start, end in found for block in range(start, end)} == blocks
    assert length_of(found) == len(blocks)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@pytest.fixture(params=["vfs-ext4", "vfs-xfs", "btrfs-btrfs", "overlay-ext4"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GraphDriver]:
    """A driver on a file system on which nobody else works."""
    name, filesystem = request.param.split("-")
    with ExitStack() as stack:
        if filesystem == "ext4":
            if os.geteuid() != 0:
                require_or_skip(filesystem, "only root can mount a scratch file system")
            try:
                made = loop_filesystem(filesystem, str(tmp_path), size_bytes=256 << 20)
                place = stack.enter_context(made)
            except OSError as refusal:
                require_or_skip(filesystem, str(refusal))
        else:
            place = request.getfixturevalue(f"{filesystem}_directory")
        opened = open_driver(name, home=f"{place}/home", run_root=f"{place}/run")
        stack.callback(opened.cleanup)
        yield opened


def free_bytes(driver: GraphDriver) -> int:
    """Return the free bytes once all that was deleted is gone and all that was written has its place."""
    if driver.name == "btrfs":
        # A commit wakes the thread that clears subvolumes away; else it may sleep for half a minute.
        for command in ("filesystem", "subvolume", "filesystem"):
            subprocess.run(["btrfs", command, "sync", driver.home], check=True, capture_output=True)
    elif filesystem_name(driver.home) == "xfs":
        # Freezing waits for the workers that clear deleted inodes away; a sync does not.
        for command in ("--freeze", "--unfreeze"):
            subprocess.run(["fsfreeze", command, Path(driver.home).parent], check=True)
    os.sync()
    found = os.statvfs(driver.home)
    return found.f_bfree * found.f_frsize


def filled(driver: GraphDriver, layer_id: str, parent: LayerRef | None, files: dict[str, bytes]) -> LayerRef:
    driver.create(layer_id, parent)
    with driver.mounted(layer_id, read_only=False) as root:
        for name, content in files.items():
            Path(root, name).write_bytes(content)
    driver.commit(layer_id)
    return LayerRef(layer_id)


def test_usage_is_what_a_removal_frees(driver: GraphDriver) -> None:
    small = {f"small {number}": os.urandom(20_000) for number in range(20)}
    base = filled(driver, "base", None, {"large": os.urandom(16 << 20)})
    filled(driver, "child", base, {"own": os.urandom(32 << 20), **small})
    before = free_bytes(driver)

    usage = driver.disk_usage("child")
    driver.remove("child")
    driver.reclaim()

    freed = free_bytes(driver) - before
    assert usage.exclusive_bytes == pytest.approx(freed, rel=0.01)
    # What comes from the parent: shared by blocks, or copied by vfs, or not in an overlay's layer at all.
    whole = driver.name != "overlay"
    assert usage.shared_bytes in {0, 16 << 20}
    assert (freed + usage.shared_bytes) >> 20 == 32 + (16 if whole else 0)
