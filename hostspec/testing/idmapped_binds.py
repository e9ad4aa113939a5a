"""What drivers that derive from ``DirectoryDriver`` owe where they shift: how such mounts live and end."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint, mount_points
from hostspec.plugins import open_driver
from hostspec.testing.directory_layers import MAPPED, as_ordinary_user, committed, killed
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.shifting import need_shifting
from hostspec.values import MountOptions

__all__ = ["IdmappedBindsConformance"]

OTHER: Final = IdMap.parse(["0:300000:65536"])

where_it_shifts = pytest.mark.usefixtures("privileged", "shifting")


class IdmappedBindsConformance(DriverFixtures):
    """To be inherited beside :class:`~hostspec.testing.directory_layers.DirectoryLayersConformance`."""

    ways = ("native",)

    @pytest.fixture
    def shifting(self, driver: GraphDriver) -> None:
        """Skip the test where nothing can be shifted, as on kernels before 5.12."""
        need_shifting(driver, MAPPED)

    @where_it_shifts
    def test_the_shared_mount_of_a_shifted_layer_lies_in_the_run_root(self, driver: GraphDriver) -> None:
        tree = committed(driver, "base", file="x")
        path = driver.mount("base", MountOptions(idmap=MAPPED))

        assert path.endswith("/run/shifted/base")
        assert os.stat(f"{path}/file").st_uid == 100_000
        assert os.stat(f"{tree}/file").st_uid == 0
        # There is one shared mount, however it is asked for.
        assert driver.mount("base", MountOptions(idmap=MAPPED)) == driver.mount("base") == path
        assert len(mount_points(path)) == 1
        driver.unmount("base", path)
        driver.unmount("base", path)
        assert not os.path.exists(path)
        assert driver.mount("base") == tree

    @where_it_shifts
    def test_the_mapped_root_writes_and_container_ids_reach_the_disk(self, driver: GraphDriver) -> None:
        tree = committed(driver, "base")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

        def work() -> None:
            os.close(os.open("written", os.O_CREAT | os.O_WRONLY, dir_fd=place))

        assert as_ordinary_user(work, user=100_000) == 0
        os.close(place)
        with pytest.raises(OSError, match="too large"):
            # Root of the host has no ID in the container.
            Path(path, "by the host's root").touch()
        os.chown(f"{path}/written", *MAPPED.to_host(7, 8))
        found = os.stat(f"{tree}/written")
        driver.unmount("base", path)

        assert (found.st_uid, found.st_gid) == (7, 8)

    @where_it_shifts
    def test_one_layer_is_shown_under_several_maps_at_once(self, driver: GraphDriver) -> None:
        committed(driver, "base", file="x")
        with driver.mounted("base", idmap=MAPPED) as one, driver.mounted("base", idmap=OTHER) as other:
            owners = [os.stat(f"{place}/file").st_gid for place in (one, other)]
            with pytest.raises(OSError, match="Read-only"):
                os.chown(f"{other}/file", 300_001, 300_001)

        assert owners == [100_000, 300_000]

    @where_it_shifts
    def test_removal_takes_the_shared_mount_of_a_shifted_layer_down_even_if_it_is_used(
        self, driver: GraphDriver
    ) -> None:
        committed(driver, "base", file="x")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        with open(f"{path}/file", encoding="ascii") as held:
            driver.remove("base")

            assert held.read() == "x"
        assert not os.path.exists(path)
        driver.reclaim()
        assert mount_points(os.path.dirname(driver.home)) == []

    @where_it_shifts
    def test_unmounting_a_shifted_layer_in_use_is_refused(self, driver: GraphDriver) -> None:
        committed(driver, "base", file="x")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        with open(f"{path}/file", encoding="ascii"), pytest.raises(DriverFailed, match="busy"):
            driver.unmount("base", path)

        assert is_mountpoint(path)
        driver.unmount("base", path)

    @where_it_shifts
    def test_the_shifted_mount_of_a_layer_that_is_being_made_goes_with_it(self, driver: GraphDriver) -> None:
        driver.create("staged")
        path = driver.mount("staged", MountOptions(idmap=MAPPED))
        shown = os.stat(path).st_uid
        driver.remove("staged")

        assert shown == 100_000
        assert not os.path.exists(path)

    @where_it_shifts
    def test_what_a_killed_process_had_shifted_for_itself_goes_with_the_next_reclaim(
        self, driver: GraphDriver, open_driver_at: DriverOpener
    ) -> None:
        tree = committed(driver, "base", file="x")
        work = "with driver.mounted('base', idmap=MAPPED, read_only=False) as path: ready(path)"
        with killed(driver, work) as path:
            driver.reclaim()
            while_alive = is_mountpoint(path)

        open_driver_at.again().reclaim()

        assert (while_alive, is_mountpoint(path)) == (True, False)
        assert os.listdir(tree) == ["file"]

    @where_it_shifts
    def test_a_shared_mount_outlives_its_process_and_goes_when_its_layer_is_gone(
        self, driver: GraphDriver
    ) -> None:
        tree = committed(driver, "base", file="x")
        with killed(driver, "ready(driver.mount('base', MountOptions(idmap=MAPPED)))") as path:
            pass
        driver.reclaim()
        driver.close()
        assert is_mountpoint(path)

        # By a program that knows nothing of such mounts.
        shutil.rmtree(tree)
        driver.reclaim()

        assert not os.path.exists(path)

    @where_it_shifts
    def test_mounts_of_another_store_in_the_same_run_root_are_left_alone(self, driver: GraphDriver) -> None:
        committed(driver, "base")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        directory = os.path.dirname(driver.home)
        other = open_driver(driver.name, home=f"{directory}/another home", run_root=f"{directory}/run")
        committed(other, "another")

        other.reclaim()
        other.cleanup()

        assert is_mountpoint(path)
        driver.unmount("base", path)

    @where_it_shifts
    def test_a_copy_of_a_store_in_the_same_run_root_never_shows_or_takes_down_the_other_ones_layer(
        self, driver: GraphDriver
    ) -> None:
        committed(driver, "base", ours="x")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        directory = os.path.dirname(driver.home)
        copy = open_driver(driver.name, home=f"{directory}/another home", run_root=f"{directory}/run")
        tree = committed(copy, "base", theirs="x")

        with pytest.raises(DriverFailed, match="run root of its own"):
            copy.mount("base", MountOptions(idmap=MAPPED))
        assert copy.mount("base") == tree
        copy.remove("base")
        copy.reclaim()
        copy.cleanup()

        assert os.listdir(path) == ["ours"]
        driver.unmount("base", path)

    @where_it_shifts
    def test_a_new_layer_of_the_id_of_a_deleted_one_is_not_taken_for_it(self, driver: GraphDriver) -> None:
        tree = committed(driver, "base", old="x")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        shutil.rmtree(tree)
        committed(driver, "base", new="x")

        assert driver.mount("base", MountOptions(idmap=MAPPED)) == path
        assert os.listdir(path) == ["new"]
        assert len(mount_points(path)) == 1
        driver.unmount("base", path)

    @where_it_shifts
    def test_a_shared_mount_is_not_passed_off_as_one_under_another_map(self, driver: GraphDriver) -> None:
        committed(driver, "base")
        path = driver.mount("base", MountOptions(idmap=MAPPED))

        with pytest.raises(DriverFailed, match="another ID map"):
            driver.mount("base", MountOptions(idmap=OTHER))

        assert os.stat(path).st_uid == 100_000
        driver.unmount("base", path)

    @where_it_shifts
    def test_removing_a_layer_that_somebody_deleted_takes_its_mount_down(self, driver: GraphDriver) -> None:
        tree = committed(driver, "base")
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        shutil.rmtree(tree)

        driver.remove("base")

        assert not os.path.exists(path)

    @where_it_shifts
    def test_cleanup_takes_down_the_shared_mounts_that_nobody_uses(self, driver: GraphDriver) -> None:
        for layer_id in ("used", "unused"):
            committed(driver, layer_id, file="x")
        used, unused = (driver.mount(each, MountOptions(idmap=MAPPED)) for each in ("used", "unused"))
        with open(f"{used}/file", encoding="ascii"):
            driver.cleanup()
            assert (is_mountpoint(used), os.path.exists(unused)) == (True, False)
        driver.cleanup()

        assert not os.path.exists(os.path.dirname(used))

    def test_shifting_can_be_switched_off(self, open_driver_at: DriverOpener, driver: GraphDriver) -> None:
        directory = os.path.dirname(driver.home)
        driver = open_driver_at(directory, driver.name, options=(("hostspec_shifting", "off"),))
        committed(driver, "base")
        shifting = driver.supports_shifting(MAPPED)

        assert not shifting.possible
        assert "hostspec_shifting" in shifting.reason
        with pytest.raises(OperationNotSupported, match="hostspec_shifting"):
            driver.mount("base", MountOptions(idmap=MAPPED))
        assert not os.path.exists(f"{directory}/run/shifted")

    @where_it_shifts
    def test_the_environment_keeps_from_shifting_more_but_not_from_mounting(
        self, driver: GraphDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        committed(driver, "base", file="x")
        monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
        shifting = driver.supports_shifting(MAPPED)

        assert not shifting.possible
        assert "_CONTAINERS_OVERLAY_DISABLE_IDMAP" in shifting.reason
        path = driver.mount("base", MountOptions(idmap=MAPPED))
        assert os.stat(path).st_uid == MAPPED.root()[0]
        driver.unmount("base", path)

    @where_it_shifts
    def test_an_ordinary_user_is_told_why_nothing_is_shifted(self, driver: GraphDriver) -> None:
        committed(driver, "base")

        def work() -> None:
            shifting = driver.supports_shifting(MAPPED)
            assert not shifting.possible
            assert "not permitted" in shifting.reason

        assert as_ordinary_user(work) == 0

    @where_it_shifts
    def test_a_map_that_the_kernel_does_not_take_is_refused_with_its_reason(
        self, driver: GraphDriver
    ) -> None:
        ranges = [(container_id * 2, 100_000 + container_id * 2, 1) for container_id in range(400)]
        too_many = IdMap(ranges)
        committed(driver, "base")

        assert "400 ranges" in driver.supports_shifting(too_many).reason
        with pytest.raises(OperationNotSupported, match="400 ranges"):
            driver.mount("base", MountOptions(idmap=too_many))
