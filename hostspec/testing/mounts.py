"""Mounts: shared and private, read-only, shifted, and what is left when they go."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import errno
import os

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.testing.children import do_in_as_user
from hostspec.testing.layer_tars import with_layer
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import read_tree
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.requirements import skip_by_capability
from hostspec.testing.samples import ANOTHER, MAPPED, MINE, SMALL
from hostspec.testing.shifting import create_container, need_shifting, reference_to, shifted
from hostspec.values import MountOptions

__all__ = ["Mounts"]


class Mounts(DriverFixtures):
    """What ``mount`` and ``unmount`` promise."""

    @pytest.fixture
    def made(self, layers_of_mine: Layers) -> Made:
        """A layer with one file, made for a container."""
        return layers_of_mine.make("layer", MINE, read_only=False)

    @pytest.fixture
    def place(self, driver: GraphDriver, tmp_path: os.PathLike[str]) -> str:
        """An empty directory for a private mount."""
        if not driver.capabilities.mounts_privately:
            skip_by_capability("does not mount privately")
        path = os.path.join(os.fspath(tmp_path), "private")
        os.mkdir(path)
        return path

    def test_the_shared_mount_stays_at_one_place(self, driver: GraphDriver, made: Made) -> None:
        before = _mounts()
        first, second = driver.mount(made.layer_id), driver.mount(made.layer_id)

        assert first == second
        assert os.path.isabs(first)
        assert os.listdir(first) == ["file"]
        driver.unmount(made.layer_id, first)
        # A driver may make its home a mount of its own, once.
        assert [each for each in _mounts() if each not in {*before, driver.home}] == []

    def test_what_is_written_is_there_at_the_next_mount(self, driver: GraphDriver, made: Made) -> None:
        path = driver.mount(made.layer_id)
        with open(f"{path}/written", "wb") as opened:
            opened.write(b"by a container")
        driver.unmount(made.layer_id, path)

        with driver.mounted(made.layer_id) as root, open(f"{root}/written", "rb") as opened:
            assert opened.read() == b"by a container"

    def test_unmounting_can_be_repeated(self, driver: GraphDriver, made: Made) -> None:
        path = driver.mount(made.layer_id)

        driver.unmount(made.layer_id, path)
        driver.unmount(made.layer_id, path)

    def test_a_private_mount_is_where_it_was_asked_for(
        self, driver: GraphDriver, made: Made, place: str
    ) -> None:
        assert driver.mount(made.layer_id, MountOptions(target=place)) == place
        assert os.listdir(place) == ["file"]

        for _ in range(2):
            driver.unmount(made.layer_id, place)
            assert os.listdir(place) == []

    def test_a_private_mount_does_not_disturb_the_shared_one(
        self, driver: GraphDriver, made: Made, place: str
    ) -> None:
        shared = driver.mount(made.layer_id)
        with open(f"{shared}/file", "rb") as held:
            driver.mount(made.layer_id, MountOptions(target=place, read_only=True))
            driver.unmount(made.layer_id, place)

            assert os.listdir(shared) == ["file"]
            assert held.read() == b"content"
        driver.unmount(made.layer_id, shared)

    def test_the_shared_mount_does_not_disturb_a_private_one(
        self, driver: GraphDriver, made: Made, place: str
    ) -> None:
        driver.mount(made.layer_id, MountOptions(target=place, read_only=True))
        driver.unmount(made.layer_id, driver.mount(made.layer_id))

        assert os.listdir(place) == ["file"]
        driver.unmount(made.layer_id, place)

    def test_a_read_only_mount_refuses_writes(self, driver: GraphDriver, made: Made, place: str) -> None:
        if not driver.capabilities.read_only_mounts:
            skip_by_capability("does not mount read-only")
        driver.mount(made.layer_id, MountOptions(target=place, read_only=True))

        with pytest.raises(OSError, match="Read-only") as refusal:
            os.close(os.open(f"{place}/file", os.O_RDWR))

        assert refusal.value.errno == errno.EROFS
        driver.unmount(made.layer_id, place)

    def test_unmounting_leaves_no_mount_behind(self, driver: GraphDriver, made: Made) -> None:
        before = _mounts()
        for _ in range(3):
            path = driver.mount(made.layer_id)
            with driver.mounted(made.layer_id) as private, driver.mounted(made.layer_id):
                os.listdir(private)
            driver.unmount(made.layer_id, path)

        # A driver may make its home a mount of its own, once.
        assert [each for each in _mounts() if each not in {*before, driver.home}] == []

    def test_a_mounted_layer_that_is_removed_is_unmounted(self, driver: GraphDriver, made: Made) -> None:
        before = _mounts()
        driver.mount(made.layer_id)

        driver.remove(made.layer_id)
        driver.reclaim()

        assert not driver.exists(made.layer_id)
        assert [each for each in _mounts() if each not in {*before, driver.home}] == []

    def test_cleanup_takes_down_what_the_driver_mounted_for_itself(
        self, driver: GraphDriver, made: Made
    ) -> None:
        before = _mounts()
        with driver.mounted(made.layer_id):
            pass

        driver.cleanup()
        driver.cleanup()

        assert [each for each in _mounts() if each not in before] == []

    def test_an_unknown_mount_option_is_refused(self, driver: GraphDriver, made: Made) -> None:
        with pytest.raises(InvalidRequest):
            driver.mount(made.layer_id, MountOptions(options=("no-such-mount-option=1",)))

    @natively
    def test_a_map_that_cannot_be_shifted_is_refused_at_mount(self, driver: GraphDriver, made: Made) -> None:
        if driver.supports_shifting(MAPPED).possible:
            skip_by_capability("shifts")
        with pytest.raises(OperationNotSupported):
            driver.mount(made.layer_id, MountOptions(idmap=MAPPED))

    def test_a_reason_is_given_for_shifting_or_not(self, driver: GraphDriver) -> None:
        assert driver.supports_shifting(MAPPED).reason != ""

    @natively
    @pytest.mark.parametrize("idmap", [MAPPED, ANOTHER], ids=["one-range", "several-ranges"])
    def test_a_shifted_mount_shows_mapped_owners(self, layers: Layers, place: str, idmap: IdMap) -> None:
        need_shifting(layers.driver, idmap)
        image = layers.make("image", SMALL)
        create_container(layers.driver, image, idmap)

        with shifted(layers.driver, place, idmap):
            found = read_tree(place, idmap)

        found.check(SMALL)
        layers.check(image)

    @natively
    def test_what_is_written_through_a_shifted_mount_is_stored_as_announced(
        self, layers: Layers, place: str
    ) -> None:
        stored = need_shifting(layers.driver, MAPPED)
        image = layers.make("image", SMALL)
        create_container(layers.driver, image, MAPPED)
        owner = MAPPED.to_host(1_000, 1_001)

        with shifted(layers.driver, place, MAPPED):
            # Who writes must be inside the map, and the host's root is not.
            do_in_as_user(place, *MAPPED.root(), lambda: os.mkdir("written"))
            os.chown(f"{place}/written", *owner)
            seen = read_tree(place, MAPPED)["/written"]

        with layers.driver.diff(reference_to("container", MAPPED, stored), image.layer) as stream:
            packed = with_layer(SMALL, stream)["/written"]
        assert (seen.uid, seen.gid) == (packed.uid, packed.gid) == (1_000, 1_001)

    @natively
    def test_the_shared_mount_of_a_shifted_layer_shows_mapped_owners(self, layers: Layers) -> None:
        driver = layers.driver
        need_shifting(driver, MAPPED)
        image = layers.make("image", SMALL)
        create_container(driver, image, MAPPED)

        path = driver.mount("container", MountOptions(idmap=MAPPED))
        try:
            assert driver.mount("container", MountOptions(idmap=MAPPED)) == path
            read_tree(path, MAPPED).check(SMALL)
        finally:
            driver.unmount("container", path)

        assert path not in _mounts()
        layers.check(image)


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [line.split()[4] for line in table]
