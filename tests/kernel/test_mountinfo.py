from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hostspec.kernel.mountinfo import (
    filesystem_device,
    is_mountpoint,
    mount_at,
    mount_holding,
    mount_options_at,
    mount_points,
    mount_table,
)
from hostspec.kernel.mounts import MS_NOSUID, bind, mount, unmount, unmount_all

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def test_mount_points_come_deepest_first_and_as_often_as_they_are_mounted(tmp_path: Path) -> None:
    outer, twice, sibling = tmp_path / "outer", tmp_path / "outer/inner", tmp_path / "outer-sibling"
    for directory in (outer, sibling):
        directory.mkdir()
        mount("none", str(directory), "tmpfs")
    twice.mkdir()
    mount("none", str(twice), "tmpfs")
    mount("none", str(twice), "tmpfs")
    assert mount_points(str(outer)) == [str(twice), str(twice), str(outer)]
    assert mount_points(f"{outer}/") == [str(twice), str(twice), str(outer)]
    unmount_all(str(tmp_path))
    assert mount_points(str(tmp_path)) == []


@pytest.mark.parametrize(
    "name",
    ["a space", "a\ttab", "a\nnewline", "a\rreturn", "back\\slash", "back\\040slash", "hash#", "\udcff"],
)
def test_names_that_the_kernel_escapes_come_back_whole(tmp_path: Path, name: str) -> None:
    place = str(tmp_path / name)
    os.mkdir(place)
    mount("none", place, "tmpfs")
    try:
        assert mount_points(str(tmp_path)) == [place]
        assert is_mountpoint(place)
    finally:
        unmount(place)


def test_a_path_lies_on_the_nearest_mount_above_it(tmp_path: Path) -> None:
    outer, beside = tmp_path / "outer", tmp_path / "outer-sibling"
    outer.mkdir()
    mount("lower", str(outer), "tmpfs")
    mount("upper", str(outer), "tmpfs")
    found = {path: mount_holding(str(path)) for path in (outer, outer / "not/there", beside, Path("/"))}
    unmount_all(str(outer))

    sources = {path: entry.source for path, entry in found.items() if entry is not None}
    assert (sources[outer], sources[outer / "not/there"]) == ("upper", "upper")
    assert sources[beside] not in {"lower", "upper"}
    assert found[Path("/")] == mount_at("/")


def test_a_bind_mount_on_the_same_file_system_is_a_mount_point(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    assert not is_mountpoint(str(target))
    bind(str(source), str(target))
    try:
        assert is_mountpoint(str(target))
        assert not is_mountpoint(str(source))
    finally:
        unmount(str(target))


def test_a_link_to_a_mount_point_and_a_missing_path_are_none(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert is_mountpoint("/proc")
    assert not is_mountpoint(str(link))
    assert not is_mountpoint(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    assert not is_mountpoint(str(tmp_path / "file" / "below"))


def test_the_options_of_the_mount_and_of_its_file_system_are_told(tmp_path: Path) -> None:
    mount("a source", str(tmp_path), "tmpfs", MS_NOSUID, "size=64k")
    try:
        assert {"nosuid", "size=64k"} <= set(mount_options_at(str(tmp_path)))
        entry = mount_at(str(tmp_path))
        assert entry is not None
        assert (entry.source, entry.filesystem, entry.root) == ("a source", "tmpfs", "/")
        assert entry.mount_id in {each.mount_id for each in mount_table()}
    finally:
        unmount(str(tmp_path))
    assert mount_options_at(str(tmp_path)) == ()


def test_what_is_on_one_file_system_has_one_device_whatever_mount_leads_there(tmp_path: Path) -> None:
    plain, bound, other = tmp_path / "plain", tmp_path / "bound", tmp_path / "other"
    for directory in (plain, bound, other):
        directory.mkdir()
    bind(str(plain), str(bound), read_only=True)
    mount("none", str(other), "tmpfs")
    assert filesystem_device(str(bound)) == filesystem_device(str(plain)) == filesystem_device(str(tmp_path))
    assert filesystem_device(str(other)) != filesystem_device(str(plain))
    unmount_all(str(tmp_path))


def test_subvolumes_of_one_btrfs_have_its_device(btrfs_directory: str) -> None:
    subvolume = f"{btrfs_directory}/subvolume"
    subprocess.run(["btrfs", "-q", "subvolume", "create", subvolume], check=True)
    assert os.stat(subvolume).st_dev != os.stat(btrfs_directory).st_dev
    assert filesystem_device(subvolume) == filesystem_device(btrfs_directory)
