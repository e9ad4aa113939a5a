"""The vfs driver on real file systems."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import InvalidRequest, OperationNotSupported, StoreReadOnly, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import mount, unmount
from hostspec.testing.directory_layers import as_ordinary_user, committed
from hostspec.testing.requirements import require_or_skip
from hostspec.values import CreateOptions, LayerRef, MountOptions
from hostspec_vfs import VfsDriver, open_driver

MAPPED = IdMap.parse(["0:100000:65536"])

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")


def opened(place: str, *, read_only_homes: tuple[str, ...] = ()) -> GraphDriver:
    home = os.path.join(place, "vfs")
    run_root = os.path.join(place, "run")
    return GraphDriver("vfs", VfsDriver(home, run_root, read_only_homes), home=home, run_root=run_root)


@pytest.fixture
def driver(tmp_path: Path) -> GraphDriver:
    return opened(str(tmp_path))


def flags_of_extents(path: str) -> str:
    if shutil.which("filefrag") is None:
        require_or_skip("filefrag", "is not installed; Debian's package is e2fsprogs")
    done = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True)
    return done.stdout


@as_root
def test_a_child_keeps_what_its_parent_has_whatever_map_is_wanted(driver: GraphDriver) -> None:
    driver.create("base")
    tree = driver.mount("base")
    Path(tree, "a").write_text("a")
    os.link(os.path.join(tree, "a"), os.path.join(tree, "b"))
    os.chown(os.path.join(tree, "a"), 7, 8)
    os.chmod(os.path.join(tree, "a"), 0o6755)
    os.setxattr(os.path.join(tree, "a"), "user.note", b"kept")
    os.utime(os.path.join(tree, "a"), ns=(1, 1_234_567_890_123_456_789))
    os.chmod(tree, 0o700)
    driver.commit("base")
    driver.create("child", LayerRef("base"), CreateOptions(idmap=MAPPED))
    copy = driver.mount("child")
    a, b = (os.stat(os.path.join(copy, name)) for name in "ab")
    assert (a.st_uid, a.st_gid, stat.S_IMODE(a.st_mode)) == (7, 8, 0o6755)
    assert a.st_mtime_ns == 1_234_567_890_123_456_789
    assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
    assert os.getxattr(os.path.join(copy, "b"), "user.note") == b"kept"
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o700
    assert a.st_ino != os.stat(os.path.join(driver.mount("base"), "a")).st_ino


def test_a_copy_on_xfs_shares_its_blocks(xfs_directory: str) -> None:
    driver = opened(xfs_directory)
    content = os.urandom(1 << 20).hex()
    committed(driver, "base", file=content)
    child = committed(driver, "child", "base")
    assert "shared" in flags_of_extents(os.path.join(child, "file"))
    assert Path(child, "file").read_text() == content


def test_a_copy_on_ext4_has_the_content_and_its_own_blocks(ext4_directory: str) -> None:
    driver = opened(ext4_directory)
    content = os.urandom(1 << 20).hex()
    committed(driver, "base", file=content)
    child = committed(driver, "child", "base")
    assert "shared" not in flags_of_extents(os.path.join(child, "file"))
    assert Path(child, "file").read_text() == content


def test_limits_and_unknown_options_are_refused_before_anything_is_made(driver: GraphDriver) -> None:
    for options in (CreateOptions(size=1 << 20), CreateOptions(inodes=10), CreateOptions(mount_label="l")):
        with pytest.raises(OperationNotSupported):
            driver.create("base", options=options)
    with pytest.raises(InvalidRequest, match="colour"):
        driver.create("base", options=CreateOptions(others=(("colour", "red"),)))
    assert not os.path.exists(driver.home)


def test_the_factory_knows_its_options(tmp_path: Path) -> None:
    home, run = str(tmp_path / "vfs"), str(tmp_path / "run")
    assert isinstance(open_driver(home, run, (("ignore_chown_errors", "true"),), ()), VfsDriver)
    for wrong in ("mountopt", "size"):
        with pytest.raises(InvalidRequest, match=wrong):
            open_driver(home, run, ((wrong, "1"),), ())
    with pytest.raises(InvalidRequest, match="true or false"):
        open_driver(home, run, (("ignore_chown_errors", "maybe"),), ())


def test_what_fails_half_way_leaves_nothing(driver: GraphDriver) -> None:
    committed(driver, "base", file="x")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.create("child", LayerRef("base"), CreateOptions(progress=stop))
    assert driver.list_layers() == ["base"]
    with pytest.raises(Unknown):
        driver.mount("child")
    assert "child" not in [name for _, names, _ in os.walk(driver.home) for name in names]


def test_layers_of_an_additional_store_are_parents_and_never_removed(tmp_path: Path) -> None:
    additional = opened(str(tmp_path / "additional"))
    tree = committed(additional, "base", file="x")
    driver = opened(str(tmp_path / "own"), read_only_homes=(additional.home,))
    assert driver.exists("base")
    assert driver.mount("base") == tree
    assert driver.list_layers() == []
    child = committed(driver, "child", "base")
    assert Path(child, "file").read_text() == "x"
    with pytest.raises(StoreReadOnly):
        driver.remove("base")
    driver.reclaim()
    assert additional.exists("base")


def test_an_ordinary_user_makes_and_deletes_layers(xfs_directory: str) -> None:
    os.chown(xfs_directory, 12345, 12345)
    driver = opened(xfs_directory)

    def work() -> None:
        assert not driver.capabilities.mounts_privately
        os.chmod(committed(driver, "base", file="x"), 0o555)
        child = committed(driver, "child", "base")
        assert Path(child, "file").read_text() == "x"
        assert stat.S_IMODE(os.stat(child).st_mode) == 0o555
        os.chmod(child, 0o755)
        assert os.stat(child).st_uid == 12345
        with pytest.raises(OperationNotSupported, match="CAP_SYS_ADMIN"):
            driver.mount("base", MountOptions(target="/mnt"))
        with driver.mounted("base") as tree:
            assert os.listdir(tree) == ["file"]
        driver.create_from_template("copy", LayerRef("child"), LayerRef("base"))
        driver.commit("copy")
        assert list(driver.changes(LayerRef("copy"), LayerRef("child"))) == []
        for layer_id in ("base", "child", "copy"):
            driver.remove(layer_id)
        driver.cleanup()

    assert as_ordinary_user(work) == 0
    assert [names for _, _, names in os.walk(driver.home) if names] == []


def test_importing_the_driver_loads_nothing_heavy() -> None:
    program = (
        "import sys, hostspec.hookspecs, hostspec.directory_layers; before = set(sys.modules)\n"
        "import hostspec_vfs; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert [name for name in loaded if not name.startswith("hostspec_vfs")] == []


@as_root
def test_removal_leaves_alone_what_lies_at_the_same_path_of_another_tmpfs(tmp_path: Path) -> None:
    """Every tmpfs may have the same source; copies of a store have layers of the same IDs."""
    stores = [tmp_path / name for name in ("one", "other")]
    drivers = []
    for store in stores:
        store.mkdir()
        mount("tmpfs", str(store), "tmpfs")
        drivers.append(opened(str(store)))
        committed(drivers[-1], "base", file="x")
    place = tmp_path / "place"
    place.mkdir()
    drivers[1].mount("base", MountOptions(target=str(place)))

    drivers[0].remove("base")

    assert is_mountpoint(str(place))
    drivers[1].unmount("base", str(place))
    for each, store in zip(drivers, stores, strict=True):
        each.close()
        unmount(str(store))
