"""The vfs driver on real file systems."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate, InvalidRequest, OperationNotSupported, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import bind, is_mountpoint, mount_points
from hostspec.values import CreateOptions, LayerRef, MountOptions
from hostspec_vfs import VfsDriver, open_driver

MAPPED = IdMap.parse(["0:100000:65536"])

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners and mounts")


def opened(place: str, *, read_only_homes: tuple[str, ...] = ()) -> GraphDriver:
    home = os.path.join(place, "vfs")
    return GraphDriver(
        "vfs", VfsDriver(home, read_only_homes), home=home, run_root=os.path.join(place, "run")
    )


@pytest.fixture
def driver(tmp_path: Path) -> GraphDriver:
    return opened(str(tmp_path))


def committed(driver: GraphDriver, layer_id: str, parent: str | None = None, **files: str) -> str:
    driver.create(layer_id, LayerRef(parent) if parent else None)
    tree = Path(driver.mount(layer_id))
    for name, content in files.items():
        (tree / name).write_text(content)
    driver.commit(layer_id)
    return driver.mount(layer_id)


def flags_of_extents(path: str) -> str:
    done = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True)
    return done.stdout


def test_opening_and_asking_writes_nothing(tmp_path: Path) -> None:
    driver = opened(str(tmp_path))
    assert driver.list_layers() == []
    assert not driver.exists("base")
    assert driver.status()
    assert driver.capabilities.stages_layers
    assert driver.reclaim() == 0
    driver.remove("base")
    assert os.listdir(tmp_path) == []


def test_a_layer_lies_where_the_go_driver_looks_for_it(driver: GraphDriver) -> None:
    tree = committed(driver, "base", file="content")
    assert tree == os.path.join(driver.home, "dir", "base")
    assert stat.S_IMODE(os.stat(os.path.join(driver.home, "dir")).st_mode) == 0o700


def test_a_staged_layer_is_seen_only_after_commit(driver: GraphDriver) -> None:
    driver.create("base")
    assert not driver.exists("base")
    assert driver.list_layers() == []
    assert not opened(os.path.dirname(driver.home)).exists("base")
    driver.commit("base")
    assert driver.exists("base")
    assert driver.list_layers() == ["base"]
    assert opened(os.path.dirname(driver.home)).exists("base")


@as_root
def test_an_empty_root_belongs_to_the_mapped_root(driver: GraphDriver) -> None:
    driver.create("base", options=CreateOptions(idmap=MAPPED))
    root = os.stat(driver.mount("base"))
    assert (root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode)) == (100000, 100000, 0o755)


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


def test_a_layer_and_its_parent_do_not_touch_each_other(driver: GraphDriver) -> None:
    parent = committed(driver, "base", file="old")
    child = committed(driver, "child", "base", file="new")
    assert Path(parent, "file").read_text() == "old"
    driver.remove("base")
    driver.reclaim()
    assert Path(child, "file").read_text() == "new"
    assert driver.list_layers() == ["child"]


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
    other.reclaim()
    assert sorted(driver.list_layers()) == ["base", "staged"]


@pytest.mark.parametrize("layer_id", ["", ".", "..", "a/b", "/etc", "nul\0"])
def test_an_id_that_is_no_file_name_is_refused(driver: GraphDriver, layer_id: str) -> None:
    for operation in (driver.create, driver.mount, driver.remove, driver.exists):
        with pytest.raises(InvalidRequest, match="file name"):
            operation(layer_id)


def test_unknown_layers_are_named(driver: GraphDriver) -> None:
    with pytest.raises(Unknown, match="gone"):
        driver.create("child", LayerRef("gone"))
    for operation in (driver.mount, driver.metadata, driver.commit):
        with pytest.raises(Unknown, match="gone"):
            operation("gone")
    driver.remove("gone")
    assert driver.list_layers() == []


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


@as_root
def test_a_private_mount_is_a_bind_and_may_be_read_only(driver: GraphDriver, tmp_path: Path) -> None:
    committed(driver, "base", file="x")
    target = tmp_path / "target"
    target.mkdir()
    assert driver.mount("base", MountOptions(target=str(target), read_only=True)) == str(target)
    assert (target / "file").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_text("y")
    Path(driver.mount("base"), "file").write_text("z")
    assert (target / "file").read_text() == "z"
    for _ in range(2):
        driver.unmount("base", str(target))
        assert not is_mountpoint(str(target))
    driver.unmount("base", driver.mount("base"))
    assert driver.exists("base")


@as_root
def test_removal_takes_down_what_is_still_mounted(driver: GraphDriver, tmp_path: Path) -> None:
    tree = committed(driver, "base", file="x")
    os.mkdir(os.path.join(tree, "inside"))
    target, precious = tmp_path / "target", tmp_path / "precious"
    target.mkdir()
    precious.mkdir()
    (precious / "file").write_text("not ours")
    driver.mount("base", MountOptions(target=str(target)))
    bind(str(precious), os.path.join(tree, "inside"))
    driver.remove("base")
    assert mount_points(str(tmp_path)) == []
    driver.reclaim()
    assert (precious / "file").read_text() == "not ours"


def test_mounting_under_a_map_or_with_options_is_refused(driver: GraphDriver) -> None:
    committed(driver, "base")
    assert not driver.supports_shifting(MAPPED).possible
    with pytest.raises(OperationNotSupported, match="ID map"):
        driver.mount("base", MountOptions(idmap=MAPPED))
    with pytest.raises(InvalidRequest, match="nodev"):
        driver.mount("base", MountOptions(options=("nodev",)))
    assert driver.mount("base", MountOptions(options=("ro",))) == driver.mount("base")


def test_layers_of_an_additional_store_are_parents_and_never_removed(tmp_path: Path) -> None:
    additional = opened(str(tmp_path / "additional"))
    tree = committed(additional, "base", file="x")
    driver = opened(str(tmp_path / "own"), read_only_homes=(additional.home,))
    assert driver.exists("base")
    assert driver.mount("base") == tree
    assert driver.list_layers() == []
    child = committed(driver, "child", "base")
    assert Path(child, "file").read_text() == "x"
    driver.remove("base")
    driver.reclaim()
    assert additional.exists("base")


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
        "from hostspec_vfs import VfsDriver\n"
        "from hostspec.values import CreateOptions, LayerRef, MountOptions\n"
        "driver = VfsDriver(sys.argv[1])\n"
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


def as_ordinary_user(work: Callable[[], None]) -> int:
    """Do something in a child process without privileges; return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            work()
        except BaseException:  # noqa: BLE001 - a child of pytest must not return into it
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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
