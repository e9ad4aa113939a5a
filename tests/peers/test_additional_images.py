"""podman uses images of an additional store, and names that hostspec gave them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hostspec.images.importing import import_image
from hostspec.store import Image, Store, open_store
from tests.peers.busybox import GREETING
from tests.peers.clients import Place, require_program

NAME = "localhost/shared:latest"
OWN_NAME = "localhost/own:latest"

# The btrfs driver of the Go library's version 1.43 knows no additional stores.
pytestmark = pytest.mark.parametrize("place", ["overlay", "vfs"], indirect=True)


@pytest.fixture
def shared(place: Place, busybox_root: str) -> Image:
    """An image in a store beside the test's own."""
    require_program("podman")
    with open_store(root=_shared_root(place), run_root=f"{place.run}/shared", driver=place.driver) as store:
        made = import_image(store, busybox_root, names=[NAME])
        store.shutdown()
        return made


@pytest.fixture
def with_shared(place: Place, shared: Image) -> Iterator[Store]:
    """The test's own store, which uses that one."""
    del shared
    with open_store(
        root=place.graph, run_root=place.run, driver=place.driver, options=[_option(place)]
    ) as store:
        yield store


def _shared_root(place: Place) -> str:
    return os.path.join(place.directory, "shared")


def _option(place: Place) -> str:
    return f"{place.driver}.imagestore={_shared_root(place)}"


def podman(place: Place, *words: str) -> str:
    return place.podman("--storage-opt", _option(place), *words)


def test_podman_and_hostspec_see_the_same_read_only_image(
    place: Place, with_shared: Store, shared: Image
) -> None:
    listed = podman(place, "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ReadOnly}}")
    assert listed == f"{NAME} true"
    assert [(each.id, each.read_only) for each in with_shared.images()] == [(shared.id, True)]


def test_podman_runs_an_image_of_an_additional_store_under_the_name_that_hostspec_gave_it(
    place: Place, with_shared: Store
) -> None:
    with_shared.add_names(NAME, [OWN_NAME])
    assert podman(place, "run", "--rm", OWN_NAME, "cat", "/etc/greeting").strip() == GREETING.strip()
    assert podman(place, "image", "inspect", "--format", "{{.RepoTags}}", OWN_NAME) == f"[{NAME} {OWN_NAME}]"
    assert with_shared.containers() == ()


def test_hostspec_mounts_a_container_that_podman_made_on_such_an_image(
    place: Place, with_shared: Store
) -> None:
    made = podman(place, "create", NAME, "true")
    with (
        with_shared.mounting(made, read_only=True) as path,
        open(f"{path}/etc/greeting", encoding="utf-8") as file,
    ):
        assert file.read() == GREETING
    podman(place, "rm", made)
