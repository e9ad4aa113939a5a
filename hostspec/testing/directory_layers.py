"""What drivers that derive from ``DirectoryDriver`` owe beyond the contract: places and mounts of layers."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar, Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, Duplicate, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import bind
from hostspec.kernel.usernamespaces import run_in_user_namespace
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layer_tars import layer_tar
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.tree import Tree, file
from hostspec.values import LayerRef, MountOptions

__all__ = ["MAPPED", "DirectoryLayersConformance", "as_ordinary_user", "as_root", "committed", "killed"]

MAPPED: Final = IdMap.parse(["0:100000:65536"])

as_root = pytest.mark.usefixtures("privileged")

_KILLED_PROCESS: Final = """
import signal, sys
from hostspec.idmap import IdMap
from hostspec.plugins import open_driver
from hostspec.values import LayerRef, MountOptions

MAPPED = IdMap.parse(["0:100000:65536"])
driver = open_driver(sys.argv[1], home=sys.argv[2], run_root=sys.argv[3])
def ready(path):
    print(path, flush=True)
    signal.pause()
"""


def committed(driver: GraphDriver, layer_id: str, parent: str | None = None, **files: str) -> str:
    """Make a layer with some files, and return its directory."""
    driver.create(layer_id, LayerRef(parent) if parent else None)
    tree = Path(driver.mount(layer_id))
    for name, content in files.items():
        (tree / name).write_text(content)
    driver.commit(layer_id)
    return driver.mount(layer_id)


def as_ordinary_user(work: Callable[[], None], *, user: int = 12345) -> int:
    """Do something in a child process that has no privileges; return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            work()
        except BaseException:  # noqa: BLE001 - a child of pytest must not return into it
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def killed(driver: GraphDriver, work: str) -> Iterator[str]:
    """Have another process do something; it is killed at the end of the block.

    Args:
        driver: The other process opens the same.
        work: Statements that use ``driver``, the last one ``ready(text)``.

    Yields:
        That text.
    """
    run_root = os.path.join(os.path.dirname(driver.home), "run")
    command = [sys.executable, "-c", _KILLED_PROCESS + work, driver.name, driver.home, run_root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)


class DirectoryLayersConformance(DriverFixtures):
    """To be inherited beside :class:`~hostspec.testing.DriverConformance`; needs the fixture ``driver``."""

    directory: ClassVar[str]
    """Name of the directory for committed layers, in the home."""
    ways = ("native",)

    # Where layers lie

    def test_a_layer_lies_where_the_go_library_looks_for_it(self, driver: GraphDriver) -> None:
        tree = committed(driver, "base", file="content")

        assert tree == os.path.join(driver.home, self.directory, "base")
        assert stat.S_IMODE(os.stat(os.path.dirname(tree)).st_mode) == 0o700

    def test_a_layer_and_its_parent_do_not_touch_each_other(self, driver: GraphDriver) -> None:
        parent = committed(driver, "base", file="old")
        child = committed(driver, "child", "base", file="new")

        assert Path(parent, "file").read_text() == "old"
        driver.remove("base")
        driver.reclaim()
        assert Path(child, "file").read_text() == "new"

    def test_of_two_who_make_a_layer_the_second_is_refused_at_commit(
        self, driver: GraphDriver, open_driver_at: DriverOpener
    ) -> None:
        other = open_driver_at.again()
        other.create("base")
        committed(driver, "base", file="ours")

        with pytest.raises(Duplicate):
            other.commit("base")

        other.remove("base")
        other.reclaim()
        assert os.listdir(driver.mount("base")) == ["file"]

    @pytest.mark.parametrize("layer_id", ["", ".", "..", "a/b", "/etc", "nul\0"])
    def test_an_id_that_is_no_file_name_is_refused(self, driver: GraphDriver, layer_id: str) -> None:
        for operation in (driver.create, driver.mount, driver.remove, driver.exists):
            with pytest.raises(InvalidRequest, match="file name"):
                operation(layer_id)

    @pytest.mark.parametrize("way", ["close", "cleanup"])
    def test_closing_abandons_what_was_not_committed(self, driver: GraphDriver, way: str) -> None:
        committed(driver, "base")
        driver.create("staged", LayerRef("base"))
        committed(driver, "removed")
        driver.remove("removed")

        getattr(driver, way)()
        getattr(driver, way)()

        assert os.listdir(os.path.join(driver.home, "tempdirs")) == []
        assert driver.list_layers() == ["base"]

    def test_what_a_killed_process_was_making_goes_with_the_next_reclaim(self, driver: GraphDriver) -> None:
        committed(driver, "base", file="x")
        work = "driver.create('child', LayerRef('base'))\nready(driver.mount('child'))"
        with killed(driver, work) as staged:
            driver.reclaim()
            assert os.path.isdir(staged)

        driver.reclaim()

        assert not os.path.exists(staged)
        assert driver.list_layers() == ["base"]

    # Without privileges

    @as_root
    def test_root_of_a_user_namespace_makes_maps_mounts_and_removes_layers(self, driver: GraphDriver) -> None:
        user = IdMap.parse(["0:12345:1", "1:200000:65535"])
        os.chown(os.path.dirname(driver.home), 12345, 12345)

        def work() -> int:
            tree = committed(driver, "base", file="x")
            os.chown(f"{tree}/file", 7, 8)
            shifting = driver.supports_shifting(IdMap.parse(["0:1000:1000"]))
            assert not shifting.possible
            assert "user namespace" in shifting.reason
            driver.create_from_template("copy", LayerRef("base"), None)
            driver.update_idmap("copy", IdMap(), IdMap.parse(["0:1000:1000"]))
            driver.commit("copy")
            with driver.mounted("copy") as place, pytest.raises(OSError, match="Read-only"):
                os.chown(f"{place}/file", 0, 0)
            with driver.mounted("copy") as place:
                assert os.stat(f"{place}/file").st_gid == 1008
            for layer_id in driver.list_layers():
                driver.remove(layer_id)
            driver.cleanup()
            return 0

        assert run_in_user_namespace(user, work) == 0
        assert driver.list_layers() == []
        assert os.listdir(os.path.join(driver.home, "tempdirs")) == []

    @as_root
    def test_an_ordinary_user_squashes_owners_where_that_is_allowed(
        self, open_driver_at: DriverOpener, driver: GraphDriver
    ) -> None:
        directory = os.path.dirname(driver.home)
        os.chown(directory, 12345, 12345)
        tar = layer_tar(None, Tree({"/file": file(b"content", uid=7)}))
        squashing = open_driver_at(directory, driver.name, options=(("ignore_chown_errors", "true"),))

        def work() -> None:
            for each, refused in ((driver, True), (squashing, False)):
                each.create("layer")
                with pytest.raises(DriverFailed, match="not permitted") if refused else nullcontext():
                    each.apply_diff("layer", io.BytesIO(tar))
                found = each.mount("layer")
                each.remove("layer")
                each.reclaim()
                assert not os.path.exists(found)

        assert as_ordinary_user(work) == 0

    # Mounts

    @as_root
    def test_removal_takes_down_private_mounts(self, driver: GraphDriver, tmp_path: Path) -> None:
        committed(driver, "base", file="x")
        places = [str(tmp_path / name) for name in ("plain", "shifted")]
        for place, idmap in zip(places, (IdMap(), MAPPED), strict=True):
            os.mkdir(place)
            driver.mount("base", MountOptions(target=place, idmap=idmap))

        driver.remove("base")

        assert [place for place in places if is_mountpoint(place)] == []

    @as_root
    def test_what_others_mounted_in_a_layer_outlives_it(self, driver: GraphDriver, tmp_path: Path) -> None:
        tree = committed(driver, "base")
        os.mkdir(f"{tree}/inside")
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "file").write_text("not ours")
        bind(str(precious), f"{tree}/inside")

        driver.remove("base")
        driver.reclaim()

        assert (precious / "file").read_text() == "not ours"

    def test_only_ro_and_rw_are_mount_options(self, driver: GraphDriver) -> None:
        committed(driver, "base")

        with pytest.raises(InvalidRequest, match="nodev"):
            driver.mount("base", MountOptions(options=("nodev",)))
        assert driver.mount("base", MountOptions(options=("ro",))) == driver.mount("base")

    def test_unknown_layers_are_named(self, driver: GraphDriver) -> None:
        for operation in (driver.mount, driver.metadata, driver.commit):
            with pytest.raises(Unknown, match="gone"):
                operation("gone")
