"""Opening, the life of a layer, and mounts, on a real btrfs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import (
    Duplicate,
    InvalidRequest,
    OperationNotSupported,
    Unknown,
    WrongFilesystem,
)
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import is_mountpoint, mount_points
from hostspec.values import CreateOptions, LayerRef, MountOptions
from hostspec_btrfs import ioctls, open_driver
from hostspec_btrfs.subvolumes import opened_path

from .conftest import (
    MAPPED,
    as_ordinary_user,
    btrfs,
    committed,
    is_subvolume,
    nested_in,
    opened,
    subvolumes_of,
)


def test_a_home_on_another_file_system_is_refused_with_its_name(ext4_directory: str) -> None:
    with pytest.raises(WrongFilesystem, match="is on ext4"):
        open_driver(os.path.join(ext4_directory, "not", "yet"), ext4_directory, (), ())
    assert os.listdir(ext4_directory) == []


def test_opening_and_asking_writes_nothing(btrfs_directory: str) -> None:
    driver = opened(btrfs_directory)
    assert driver.list_layers() == []
    assert not driver.exists("base")
    assert dict(driver.status())["Backing Filesystem"] == "btrfs"
    assert driver.capabilities.stages_layers
    assert driver.reclaim() == 0
    driver.remove("base")
    assert os.listdir(btrfs_directory) == []


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


def test_an_empty_root_belongs_to_the_mapped_root(driver: GraphDriver) -> None:
    driver.create("base", options=CreateOptions(idmap=MAPPED))
    root = os.stat(driver.mount("base"))
    assert (root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode)) == (100000, 100000, 0o755)


def test_a_staged_layer_is_seen_only_after_commit(driver: GraphDriver) -> None:
    driver.create("base")
    assert not driver.exists("base")
    assert driver.list_layers() == []
    driver.commit("base")
    assert driver.exists("base")
    assert opened(os.path.dirname(driver.home)).list_layers() == ["base"]


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


def test_an_id_that_is_taken_is_refused(driver: GraphDriver) -> None:
    committed(driver, "base")
    driver.create("staged")
    for taken in ("base", "staged"):
        with pytest.raises(Duplicate, match=taken):
            driver.create(taken)
    other = opened(os.path.dirname(driver.home))
    other.create("staged")
    driver.commit("staged")
    with pytest.raises(Duplicate):
        other.commit("staged")
    other.remove("staged")


@pytest.mark.parametrize("layer_id", ["", ".", "..", "a/b", "nul\0"])
def test_an_id_that_is_no_file_name_is_refused(driver: GraphDriver, layer_id: str) -> None:
    for operation in (driver.create, driver.mount, driver.remove, driver.exists):
        with pytest.raises(InvalidRequest, match="file name"):
            operation(layer_id)


def test_unknown_layers_are_named(driver: GraphDriver) -> None:
    with pytest.raises(Unknown, match="gone"):
        driver.create("child", LayerRef("gone"))
    with pytest.raises(Unknown, match="gone"):
        driver.create_from_template("child", LayerRef("gone"))
    for operation in (driver.mount, driver.metadata, driver.commit, driver.disk_usage):
        with pytest.raises(Unknown, match="gone"):
            operation("gone")


def test_closing_abandons_what_was_not_committed(driver: GraphDriver) -> None:
    committed(driver, "base")
    driver.create("staged", LayerRef("base"))
    committed(driver, "removed")
    driver.remove("removed")
    driver.cleanup()
    driver.cleanup()
    assert os.listdir(os.path.join(driver.home, "tempdirs")) == []
    assert driver.list_layers() == ["base"]


def test_what_a_killed_process_was_making_goes_with_the_next_reclaim(driver: GraphDriver) -> None:
    committed(driver, "base", file="x")
    program = (
        "import sys, time\n"
        "from hostspec_btrfs import BtrfsDriver\n"
        "from hostspec.values import CreateOptions, LayerRef, MountOptions\n"
        "driver = BtrfsDriver(sys.argv[1])\n"
        "driver.create('child', LayerRef('base'), CreateOptions())\n"
        "print(driver.mount('child', MountOptions()), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, driver.home], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        staged = process.stdout.readline().strip()
        driver.reclaim()
        assert os.path.isdir(staged)
        process.send_signal(signal.SIGKILL)
    driver.reclaim()
    assert not os.path.exists(staged)
    assert driver.list_layers() == ["base"]


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


def test_removal_takes_down_what_is_still_mounted(driver: GraphDriver, tmp_path: Path) -> None:
    committed(driver, "base", file="x")
    driver.mount("base", MountOptions(target=str(tmp_path)))
    driver.remove("base")
    assert mount_points(str(tmp_path)) == []
    driver.reclaim()
    assert subvolumes_of(driver) == []


def test_mounting_under_a_map_or_with_options_is_refused(driver: GraphDriver) -> None:
    committed(driver, "base")
    assert not driver.supports_shifting(MAPPED).possible
    with pytest.raises(OperationNotSupported, match="ID map"):
        driver.mount("base", MountOptions(idmap=MAPPED))
    with pytest.raises(InvalidRequest, match="nodev"):
        driver.mount("base", MountOptions(options=("nodev",)))
