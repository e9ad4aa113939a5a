"""The fallbacks, under a driver that has nothing but the required hooks."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, IdNotMapped, InvalidArchive, Unknown
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import count_files
from hostspec.testing.tree import Tree, directory, file
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    CreateOptions,
    LayerRef,
    MountOptions,
    Progress,
    Shifted,
    ShiftOptions,
)
from tests.testing.minimal_driver.hostspec_minimal import MinimalDriver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to several users, which only root may")

MAPPED = IdMap([(0, 100_000, 65_536)], [(0, 200_000, 65_536)])
OTHER = IdMap([(0, 400_000, 65_536)])
SMALL = IdMap([(0, 100_000, 100)])
BELOW = Tree({"/below": file(b"below", uid=1), "/d": directory(uid=2), "/d/kept": file(b"kept", uid=3)})
ABOVE = BELOW.without("/below").with_entries({"/d/new": file(b"new", uid=4), "/above": file(b"above", uid=5)})
LARGE = os.urandom(4 << 20)


class Watched(MinimalDriver):
    """Declines everything optional, and remembers with which maps it was asked."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.asked: list[tuple[str, IdMap, IdMap]] = []

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap) -> Shifted | None:
        self.asked.append(("update_idmap", old, new))
        return None

    @hookimpl
    def apply_diff(self, layer_id: str, options: ApplyOptions) -> int | None:
        self.asked.append(("apply_diff", IdMap(), options.idmap))
        return None


class Whole(Watched):
    """Says that its layers are whole trees."""

    @hookimpl
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(layers_are_whole=True)


class CutsDiffs(MinimalDriver):
    """Gives a part of a layer tar, and then an error."""

    error: BaseException = OSError(5, "Input/output error")

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        return self._cut()

    @contextmanager
    def _cut(self) -> Iterator[BinaryIO]:
        yield Cut(self.error)  # type: ignore[misc]


class Cut:
    """A stream that ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def read(self, size: int = -1) -> bytes:
        raise self._error

    def readinto(self, buffer: bytearray) -> int:
        raise self._error


def opened(place: str, kind: type[MinimalDriver] = MinimalDriver) -> tuple[Layers, MinimalDriver]:
    home, run_root = os.path.join(place, "home"), os.path.join(place, "run")
    implementation = kind(home, run_root, (), ())
    return Layers(GraphDriver("minimal", implementation, home=home, run_root=run_root)), implementation


def template_in(layers: Layers, *, parent_map: IdMap | None = None, idmap: IdMap | None = None) -> Made:
    parent = layers.make("parent", BELOW, idmap=parent_map)
    return layers.make("template", ABOVE, parent, idmap=idmap)


def used_bytes(place: str) -> int:
    os.sync()
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


# A copy of a template


def test_what_is_inherited_is_mapped_in_place_and_the_rest_while_it_is_unpacked(ext4_directory: str) -> None:
    layers, driver = opened(ext4_directory, Watched)
    assert isinstance(driver, Watched)
    template = template_in(layers, parent_map=OTHER, idmap=OTHER)
    driver.asked.clear()

    layers.check(layers.copy("copy", template, MAPPED))

    # Once for what comes from the parent, once for what comes from the template: each file once.
    assert driver.asked == [("update_idmap", OTHER, MAPPED), ("apply_diff", IdMap(), MAPPED)]


def test_a_parent_that_has_the_wanted_map_is_not_mapped_again(ext4_directory: str) -> None:
    layers, driver = opened(ext4_directory, Watched)
    assert isinstance(driver, Watched)
    template = template_in(layers, parent_map=MAPPED, idmap=OTHER)
    driver.asked.clear()

    layers.check(layers.copy("copy", template, MAPPED))

    assert driver.asked == [("apply_diff", IdMap(), MAPPED)]


def test_a_driver_of_whole_layers_gets_one_pass(ext4_directory: str) -> None:
    layers, driver = opened(ext4_directory, Whole)
    assert isinstance(driver, Whole)
    template = template_in(layers, parent_map=IdMap(), idmap=OTHER)
    driver.asked.clear()

    layers.check(layers.copy("copy", template, MAPPED))

    assert driver.asked == []


@pytest.mark.parametrize("kind", [MinimalDriver, Whole], ids=["difference", "whole"])
@pytest.mark.parametrize("filesystem", ["xfs_directory", "btrfs_directory"])
def test_content_is_shared_where_the_file_system_can(
    request: pytest.FixtureRequest, kind: type[MinimalDriver], filesystem: str
) -> None:
    place = request.getfixturevalue(filesystem)
    layers, _ = opened(place, kind)
    parent = layers.make("parent", BELOW)
    template = layers.make("template", ABOVE.with_entries({"/large": file(LARGE, uid=9)}), parent)
    before = used_bytes(place)

    copy = layers.copy("copy", template, MAPPED)

    assert used_bytes(place) - before < len(LARGE) // 2
    layers.check(copy)
    with layers.driver.mounted("copy", read_only=False) as root, open(f"{root}/large", "r+b") as shared:
        shared.write(b"changed")
    layers.check(template)


@pytest.mark.parametrize("kind", [MinimalDriver, Whole], ids=["difference", "whole"])
@pytest.mark.parametrize("filesystem", ["ext4_directory", "xfs_directory"])
@pytest.mark.parametrize("strange", ["/below", "/above"], ids=["inherited", "own"])
def test_a_copy_that_fails_half_way_leaves_nothing(
    request: pytest.FixtureRequest, kind: type[MinimalDriver], filesystem: str, strange: str
) -> None:
    layers, _ = opened(request.getfixturevalue(filesystem), kind)
    outside = {strange: file(b"outside the map", uid=5_000)}
    below = BELOW.with_entries(outside) if strange in BELOW else BELOW
    parent = layers.make("parent", below)
    template = layers.make("template", below.with_entries({"/d/new": file(b"new"), **outside}), parent)
    before = count_files(layers.driver.home)

    with pytest.raises(IdNotMapped) as refusal:
        layers.driver.create_from_template("copy", template.layer, parent.layer, CreateOptions(idmap=SMALL))

    assert (refusal.value.path.strip("/"), refusal.value.number) == (strange[1:], 5_000)
    assert sorted(layers.driver.list_layers()) == ["parent", "template"]
    assert count_files(layers.driver.home) == before


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), InvalidArchive("cut off"), KeyboardInterrupt()], ids=repr
)
def test_a_copy_whose_stream_breaks_leaves_nothing(ext4_directory: str, error: BaseException) -> None:
    layers, driver = opened(ext4_directory, CutsDiffs)
    assert isinstance(driver, CutsDiffs)
    template = template_in(layers)
    before = count_files(layers.driver.home)
    driver.error = error

    with pytest.raises((DriverFailed, InvalidArchive, KeyboardInterrupt)):
        layers.driver.create_from_template(
            "copy", template.layer, LayerRef("parent"), CreateOptions(idmap=MAPPED)
        )

    assert sorted(layers.driver.list_layers()) == ["parent", "template"]
    assert count_files(layers.driver.home) == before


def test_a_copy_of_what_nobody_made_leaves_nothing(ext4_directory: str) -> None:
    layers, _ = opened(ext4_directory)
    parent = layers.make("parent", BELOW)

    with pytest.raises(Unknown):
        layers.driver.create_from_template("copy", LayerRef("nobody"), parent.layer)

    assert list(layers.driver.list_layers()) == ["parent"]


@pytest.mark.parametrize("kind", [MinimalDriver, Whole], ids=["difference", "whole"])
def test_a_copy_tells_how_far_it_is(ext4_directory: str, kind: type[MinimalDriver]) -> None:
    layers, _ = opened(ext4_directory, kind)
    template = template_in(layers)
    told: list[Progress] = []

    layers.driver.create_from_template(
        "copy", template.layer, LayerRef("parent"), CreateOptions(idmap=MAPPED, progress=told.append)
    )

    assert told
    assert {report.unit for report in told} <= {"files", "bytes"}


# Content


def test_a_hard_link_counts_once(ext4_directory: str) -> None:
    layers, _ = opened(ext4_directory)
    made = layers.make(
        "made", Tree({"/one": file(b"x" * 5_000), "/two": file(b"y")}, links=[("/one", "/other")])
    )

    assert layers.driver.diff_size(made.layer) == 5_001
    usage = layers.driver.disk_usage("made")
    assert (usage.inodes, usage.exclusive_bytes // 4096) == (3, 4)


def test_an_ownership_pass_tells_what_it_did(ext4_directory: str) -> None:
    layers, _ = opened(ext4_directory)
    layers.make("made", BELOW)

    # Three entries and the root directory.
    assert layers.driver.update_idmap("made", IdMap(), MAPPED).inodes == 4


def test_what_the_operating_system_refuses_is_an_error_of_the_driver(ext4_directory: str) -> None:
    class Elsewhere(MinimalDriver):
        @hookimpl
        def mount(self, layer_id: str, options: MountOptions) -> str:
            return f"{self._layers}/not-there"

    driver = opened(ext4_directory, Elsewhere)[0].driver
    driver.create("layer")
    calls: list[Callable[[], object]] = [
        lambda: list(driver.changes(LayerRef("layer"))),
        lambda: driver.disk_usage("layer"),
        lambda: driver.update_idmap("layer", IdMap(), MAPPED, ShiftOptions()),
    ]

    for call in calls:
        with pytest.raises(DriverFailed) as failure:
            call()
        assert isinstance(failure.value.__cause__, FileNotFoundError)


def test_facts_that_nobody_knows_are_empty(ext4_directory: str) -> None:
    driver = opened(ext4_directory)[0].driver
    driver.create("layer")

    assert (list(driver.status()), list(driver.metadata("layer")), driver.reclaim()) == ([], [], 0)
    shifting = driver.supports_shifting(MAPPED)
    assert not shifting.possible
    assert "minimal" in shifting.reason
