"""Opening, the life of a layer, and mounts, on a real btrfs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import (
    DriverFailed,
    InvalidRequest,
    OperationNotSupported,
    WrongFilesystem,
)
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.testing.directory_layers import as_ordinary_user, committed
from hostspec.values import CreateOptions, LayerRef, MountOptions
from hostspec_btrfs import ioctls, open_driver
from hostspec_btrfs.subvolumes import opened_path

from .conftest import MAPPED, btrfs, is_subvolume, nested_in, opened, subvolumes_of


def test_a_home_on_another_file_system_is_refused_with_its_name(ext4_directory: str) -> None:
    with pytest.raises(WrongFilesystem, match="is on ext4"):
        open_driver(os.path.join(ext4_directory, "not", "yet"), ext4_directory, (), ())
    assert os.listdir(ext4_directory) == []


@pytest.mark.parametrize(
    ("value", "size"), [("1024", 1024), ("10m", 10 << 20), ("1.5GB", 3 << 29), ("2 KiB", 2048)]
)
def test_min_space_is_the_least_size_of_a_layer(quota_directory: str, value: str, size: int) -> None:
    home = os.path.join(quota_directory, "btrfs")
    driver = GraphDriver(
        "btrfs", open_driver(home, home, (("min_space", value),), ()), home=home, run_root=home
    )
    with pytest.raises(InvalidRequest, match=str(size)):
        driver.create("base", options=CreateOptions(size=size - 1))
    driver.create("base", options=CreateOptions(size=size))


def test_unknown_options_are_refused_by_name(btrfs_directory: str) -> None:
    for option in (("mountopt", "x"), ("min_space", "much")):
        with pytest.raises(InvalidRequest, match=option[0]):
            open_driver(os.path.join(btrfs_directory, "btrfs"), btrfs_directory, (option,), ())


def test_importing_the_driver_loads_nothing_heavy() -> None:
    program = (
        "import sys, hostspec.hookspecs, hostspec.directory_layers; before = set(sys.modules)\n"
        "import hostspec_btrfs; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    foreign = [name for name in done.stdout.split() if not name.startswith("hostspec_btrfs")]
    assert foreign == []


# The life of a layer


def test_a_layer_is_a_subvolume_where_the_go_driver_looks_for_it(driver: GraphDriver) -> None:
    tree = committed(driver, "base")
    assert tree == os.path.join(driver.home, "subvolumes", "base")
    assert is_subvolume(tree)
    assert stat.S_IMODE(os.stat(os.path.join(driver.home, "subvolumes")).st_mode) == 0o700


def test_a_child_is_a_snapshot_that_stands_on_its_own(driver: GraphDriver) -> None:
    parent = committed(driver, "base", file="old")
    uuid = btrfs("subvolume", "show", parent).split("\tUUID:")[1].split()[0]
    child = committed(driver, "child", "base", file="new")
    assert f"Parent UUID: \t\t{uuid}" in btrfs("subvolume", "show", child)
    assert Path(parent, "file").read_text() == "old"
    driver.remove("base")
    driver.reclaim()
    assert Path(child, "file").read_text() == "new"
    assert driver.list_layers() == ["child"]


def test_a_template_becomes_a_snapshot_that_carries_the_templates_map(driver: GraphDriver) -> None:
    committed(driver, "base", file="x")
    template = committed(driver, "template", "base", more="y")
    carried = driver.create_from_template(
        "copy", LayerRef("template"), LayerRef("base"), CreateOptions(idmap=MAPPED)
    )
    assert carried == IdMap()
    uuid = btrfs("subvolume", "show", template).split("\tUUID:")[1].split()[0]
    assert f"Parent UUID: \t\t{uuid}" in btrfs("subvolume", "show", driver.mount("copy"))


def test_an_ownership_pass_maps_the_root_directory_too(driver: GraphDriver) -> None:
    template = committed(driver, "template", f="x")
    driver.create_from_template("copy", LayerRef("template"), None, CreateOptions(idmap=MAPPED))
    driver.update_idmap("copy", IdMap(), MAPPED)
    copy = driver.mount("copy")
    for path in (copy, os.path.join(copy, "f")):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (100000, 100000)
    for path in (template, os.path.join(template, "f")):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (0, 0)


def test_an_ordinary_user_makes_and_deletes_layers(btrfs_directory: str) -> None:
    os.chown(btrfs_directory, 12345, 12345)
    driver = opened(btrfs_directory)

    def work() -> None:
        assert not driver.capabilities.mounts_privately
        tree = committed(driver, "base", file="x")
        for name, mode in (("directory", 0o755), ("closed", 0o000), ("sealed", 0o555)):
            Path(tree, name).mkdir()
            Path(tree, name, "file").write_text("x")
            os.chmod(os.path.join(tree, name), mode)
        with opened_path(os.path.join(tree, "directory")) as fd:
            ioctls.create_subvolume(fd, "nested")
        Path(tree, "directory", "nested", "file").write_text("x")
        btrfs("property", "set", os.path.join(tree, "directory", "nested"), "ro", "true")
        os.chmod(tree, 0o555)
        child = committed(driver, "child", "base")
        assert is_subvolume(child)
        assert is_subvolume(os.path.join(child, "directory", "nested"))
        assert stat.S_IMODE(os.stat(child).st_mode) == 0o555
        with pytest.raises(OperationNotSupported, match="CAP_SYS_ADMIN"):
            driver.mount("base", MountOptions(target="/mnt"))
        driver.remove("base")
        driver.remove("child")
        driver.reclaim()

    assert as_ordinary_user(work) == 0
    assert subvolumes_of(driver) == []


def test_an_ordinary_user_is_told_why_a_layer_of_another_user_is_no_parent(btrfs_directory: str) -> None:
    additional = opened(os.path.join(btrfs_directory, "additional"))
    os.makedirs(os.path.join(btrfs_directory, "own"))
    os.chown(os.path.join(btrfs_directory, "own"), 12345, 12345)
    committed(additional, "base", file="x")
    for directory, _, _ in os.walk(os.path.join(btrfs_directory, "additional")):
        os.chmod(directory, 0o755)
    driver = opened(os.path.join(btrfs_directory, "own"), read_only_homes=(additional.home,))

    def work() -> None:
        with pytest.raises(DriverFailed, match="snapshots of own subvolumes only"):
            driver.create("child", LayerRef("base"))
        assert not driver.exists("child")
        driver.cleanup()

    assert as_ordinary_user(work) == 0


def test_a_private_mount_is_a_bind_and_may_be_read_only(driver: GraphDriver, tmp_path: Path) -> None:
    committed(driver, "base", file="x")
    nested_in(driver.mount("base"))
    assert driver.mount("base", MountOptions(target=str(tmp_path), read_only=True)) == str(tmp_path)
    assert (tmp_path / "file").read_text() == "x"
    for place in (tmp_path, tmp_path / "direct"):
        with pytest.raises(OSError, match="Read-only"):
            (place / "file").write_text("y")
    for _ in range(2):
        driver.unmount("base", str(tmp_path))
        assert not is_mountpoint(str(tmp_path))


def test_a_shifted_mount_shows_nested_subvolumes_under_the_map(driver: GraphDriver) -> None:
    committed(driver, "base", file="x")
    nested_in(driver.mount("base"))
    with driver.mounted("base", idmap=MAPPED, read_only=False) as place:
        shown = [os.stat(os.path.join(place, name)).st_uid for name in ("file", "direct", "direct/..")]
        nested = os.stat(os.path.join(place, "var/lib/machines/inner/file")).st_uid
        os.chown(os.path.join(place, "direct"), 100_009, 100_009)
    assert (shown, nested) == ([100_000, 100_001, 100_000], 100_007)
    assert os.stat(os.path.join(driver.mount("base"), "direct")).st_uid == 9


def test_removal_leaves_no_subvolume_that_a_shifted_mount_shows(driver: GraphDriver) -> None:
    committed(driver, "base", file="x")
    driver.mount("base", MountOptions(idmap=MAPPED))
    driver.remove("base")
    driver.reclaim()
    assert subvolumes_of(driver) == []
