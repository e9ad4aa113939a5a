"""What cannot be done is refused by an error of hostspec's tree that names it, and changes nothing."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate, HostspecError, InvalidRequest, OperationNotSupported, Unknown
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layers import Layers
from hostspec.testing.on_disk import read_tree
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.requirements import skip_by_capability
from hostspec.testing.samples import MAPPED, MINE
from hostspec.values import CreateOptions, DedupOptions, LayerRef, MountOptions

__all__ = ["Refusals"]

NOBODY: Final = LayerRef("nobody-made-this")
SOME: Final = LayerRef("layer")

WITH_AN_UNKNOWN_SECOND_LAYER: Final[dict[str, Callable[[GraphDriver], object]]] = {
    "create": lambda driver: driver.create("new", NOBODY),
    "create_from_template": lambda driver: driver.create_from_template("new", SOME, NOBODY),
    "changes": lambda driver: list(driver.changes(SOME, NOBODY)),
    "diff": lambda driver: _read_diff(driver),  # noqa: PLW0108 - it stands below
    "diff_size": lambda driver: driver.diff_size(SOME, NOBODY),
}
NO_FILE_NAMES: Final = {"empty": "", "itself": ".", "above": "..", "below": "a/b", "elsewhere": "../../x"}


class Refusals(DriverFixtures):
    """Bad input: never an error of Python's, never a half of something."""

    @natively
    @pytest.mark.parametrize("layer_id", NO_FILE_NAMES.values(), ids=NO_FILE_NAMES)
    def test_what_is_no_file_name_is_no_layer_id(self, driver: GraphDriver, layer_id: str) -> None:
        driver.create("layer")
        driver.commit("layer")

        with pytest.raises(HostspecError) as refusal:
            driver.create(layer_id)

        assert repr(layer_id) in str(refusal.value) or (layer_id and layer_id in str(refusal.value))
        assert list(driver.list_layers()) == ["layer"]

    @natively
    @pytest.mark.parametrize("layer_id", NO_FILE_NAMES.values(), ids=NO_FILE_NAMES)
    def test_removing_what_is_no_layer_id_removes_nothing(
        self, driver: GraphDriver, layers_of_mine: Layers, layer_id: str
    ) -> None:
        made = layers_of_mine.make("layer", MINE)

        with suppress(HostspecError):
            driver.remove(layer_id)
            driver.reclaim()

        layers_of_mine.check(made)

    @natively
    @pytest.mark.parametrize("layer_id", NO_FILE_NAMES.values(), ids=NO_FILE_NAMES)
    def test_what_is_no_layer_id_is_no_layer(self, driver: GraphDriver, layer_id: str) -> None:
        driver.create("layer")
        driver.commit("layer")

        with suppress(HostspecError):
            assert not driver.exists(layer_id)
        with pytest.raises(HostspecError):
            driver.mount(layer_id)
        with pytest.raises(HostspecError):
            driver.create("child", LayerRef(layer_id))

    @pytest.mark.parametrize("operation", WITH_AN_UNKNOWN_SECOND_LAYER)
    def test_an_unknown_parent_is_called_unknown(
        self, driver: GraphDriver, layers_of_mine: Layers, operation: str
    ) -> None:
        made = layers_of_mine.make("layer", MINE)

        with pytest.raises(Unknown) as refusal:
            WITH_AN_UNKNOWN_SECOND_LAYER[operation](driver)

        assert refusal.value.name == NOBODY.layer_id
        assert list(driver.list_layers()) == ["layer"]
        layers_of_mine.check(made)

    @natively
    def test_metadata_of_an_unknown_layer_is_refused_or_empty(self, driver: GraphDriver) -> None:
        with suppress(Unknown):
            assert list(driver.metadata(NOBODY.layer_id)) == []

    @natively
    def test_an_id_that_was_taken_meanwhile_is_refused_at_commit(
        self, driver: GraphDriver, open_driver_at: DriverOpener, layers_of_mine: Layers
    ) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        driver.create("wanted")
        theirs = Layers(open_driver_at.again()).make("wanted", MINE)

        with pytest.raises(Duplicate):
            driver.commit("wanted")

        driver.remove("wanted")
        layers_of_mine.check(theirs)

    @natively
    def test_a_place_that_is_not_there_is_no_place_to_mount(
        self, driver: GraphDriver, tmp_path: Path
    ) -> None:
        if not driver.capabilities.mounts_privately:
            skip_by_capability("does not mount privately")
        driver.create("layer")
        place = str(tmp_path / "missing")

        with pytest.raises(HostspecError, match="missing"):
            driver.mount("layer", MountOptions(target=place))

        assert not os.path.exists(place)

    @natively
    def test_a_private_mount_that_cannot_be_had_is_refused(self, driver: GraphDriver, tmp_path: Path) -> None:
        if driver.capabilities.mounts_privately:
            skip_by_capability("mounts privately")
        driver.create("layer")

        with pytest.raises(OperationNotSupported):
            driver.mount("layer", MountOptions(target=str(tmp_path)))

    @natively
    def test_an_option_that_the_driver_does_not_know_is_refused_by_name(
        self, driver: GraphDriver, open_driver_at: DriverOpener
    ) -> None:
        with pytest.raises(InvalidRequest, match="no_such_option"):
            open_driver_at.again(("no_such_option", "1"))

        assert list(driver.list_layers()) == []

    def test_an_unknown_way_to_find_equal_files_is_refused(
        self, driver: GraphDriver, layers_of_mine: Layers
    ) -> None:
        made = layers_of_mine.make("layer", MINE)

        with pytest.raises((InvalidRequest, OperationNotSupported)):
            driver.dedup([made.layer_id], DedupOptions(method="no-such-method"))

    @pytest.mark.usefixtures("privileged")
    def test_a_layer_that_is_refused_its_content_can_be_removed(self, driver: GraphDriver) -> None:
        driver.create("broken", options=CreateOptions(idmap=MAPPED))
        with pytest.raises(HostspecError):
            driver.apply_diff("broken", io.BytesIO(b"no tar " * 200))

        driver.remove("broken")
        driver.reclaim()
        driver.create("broken")
        with driver.mounted("broken") as root:
            assert list(read_tree(root, MAPPED)) == ["/"]

    @natively
    def test_a_limit_is_kept(self, driver: GraphDriver) -> None:
        if not driver.capabilities.limits_size:
            skip_by_capability("does not limit the size of layers")
        driver.create("limited", options=CreateOptions(size=8 << 20))

        with driver.mounted("limited", read_only=False) as root, pytest.raises(OSError) as full:  # noqa: PT011
            _write_megabytes(f"{root}/file", 32)

        assert full.value.errno in {errno.EDQUOT, errno.ENOSPC}
        assert driver.disk_usage("limited").limit_bytes == 8 << 20


def _read_diff(driver: GraphDriver) -> bytes:
    with driver.diff(SOME, NOBODY) as stream:
        return stream.read()


def _write_megabytes(path: str, number: int) -> None:
    with open(path, "wb", buffering=0) as opened:
        for _ in range(number):
            opened.write(os.urandom(1 << 20))
            os.fsync(opened.fileno())
