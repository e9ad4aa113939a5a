"""What a shifted container changed, where it has to be read from a mount: the owners are container IDs."""

from __future__ import annotations

import os
import tarfile
from typing import IO, cast

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.values import CreateOptions, LayerRef, MountOptions

from .conftest import AddLayer, OpenOverlay

ONE_RANGE = IdMap.parse(["0:100000:65536"])
# Under this one, host IDs of one container ID are container IDs of another.
ENTANGLED = IdMap.parse(["0:1:1000", "1000:0:1", "1001:1001:64535"])
FILES = {"etc/d/file": "content", "etc/other": "content", "plain": "content", "kept": "content"}


@pytest.fixture(params=[ONE_RANGE, ENTANGLED], ids=["one-range", "entangled"])
def idmap(request: pytest.FixtureRequest) -> IdMap:
    """The container's map."""
    return cast("IdMap", request.param)


def shifted_container(
    driver: GraphDriver, layer_id: str, place: str, image: LayerRef, idmap: IdMap
) -> LayerRef:
    """Make a container that has given two files away and renamed a directory."""
    driver.create(layer_id, image, CreateOptions(idmap=idmap))
    driver.commit(layer_id)
    os.makedirs(place, exist_ok=True)
    driver.mount(layer_id, MountOptions(target=place, idmap=idmap))
    try:
        os.chown(f"{place}/plain", *idmap.to_host(7, 8))
        os.chown(f"{place}/etc/other", *idmap.to_host(5, 6))
        os.rename(f"{place}/etc/d", f"{place}/etc/e")
    finally:
        driver.unmount(layer_id, place)
    return LayerRef(layer_id, idmap, shifted=True)


def owners_in(stream: IO[bytes]) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        return {member.name: (member.uid, member.gid) for member in archive}


@pytest.fixture
def renaming(ext4_directory: str, open_overlay: OpenOverlay) -> GraphDriver:
    """A driver whose renamed directories only the kernel can follow, so that it declines."""
    return open_overlay(ext4_directory, ("mountopt", "redirect_dir=on"))


def test_a_renamed_directory_shows_container_ids(
    renaming: GraphDriver, ext4_directory: str, add_layer: AddLayer, idmap: IdMap
) -> None:
    image = add_layer(renaming, "image", None, FILES)
    container = shifted_container(renaming, "container", f"{ext4_directory}/place", image, idmap)

    assert [str(change) for change in renaming.changes(container, image)] == [
        "Modify /etc",
        "Delete /etc/d",
        "Add /etc/e",
        "Add /etc/e/file",
        "Modify /etc/other",
        "Modify /plain",
    ]
    with renaming.diff(container, image) as stream:
        assert owners_in(stream) == {
            "etc": (0, 0),
            "etc/.wh.d": (0, 0),
            "etc/e": (0, 0),
            "etc/e/file": (0, 0),
            "etc/other": (5, 6),
            "plain": (7, 8),
        }
    assert renaming.diff_size(container, image) == 3 * len("content")


def test_a_shifted_container_is_compared_with_one_that_is_not(
    renaming: GraphDriver, ext4_directory: str, add_layer: AddLayer, idmap: IdMap
) -> None:
    image = add_layer(renaming, "image", None, FILES)
    container = shifted_container(renaming, "container", f"{ext4_directory}/place", image, idmap)
    plain = add_layer(renaming, "plain", image, {"added": "not in the other"})

    assert [str(change) for change in renaming.changes(container, plain)] == [
        "Delete /added",
        "Modify /etc",
        "Delete /etc/d",
        "Add /etc/e",
        "Add /etc/e/file",
        "Modify /etc/other",
        "Modify /plain",
    ]
    with renaming.diff(container, plain) as stream:
        assert owners_in(stream)["plain"] == (7, 8)


def test_two_shifted_containers_are_compared_by_container_ids(
    renaming: GraphDriver, ext4_directory: str, add_layer: AddLayer, idmap: IdMap
) -> None:
    image = add_layer(renaming, "image", None, FILES)
    place = f"{ext4_directory}/place"
    one = shifted_container(renaming, "one", place, image, idmap)
    other = shifted_container(renaming, "other", place, image, IdMap.parse(["0:300000:65536"]))

    assert list(renaming.changes(one, other)) == []
