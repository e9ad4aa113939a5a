"""Images of more layers than the Go library mounts are usable here, and are said to be so."""

from __future__ import annotations

import pytest

from hostspec.store import Store
from tests.peers.clients import Place, require_program

LIMIT = 128
"""The most layers below a container that the Go library's version 1.43 mounts on overlay."""


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
def test_the_store_tells_which_images_its_peer_can_no_longer_mount(place: Place, store: Store) -> None:
    require_program("containers-storage")
    top = None
    for number in range(1, LIMIT + 2):
        top = store.create_layer(top, layer_id=f"layer-{number}", read_only=True).id
    for number in (LIMIT, LIMIT + 1):
        store.create_image(f"layer-{number}", image_id=f"image-{number}")
        store.create_container(f"image-{number}", container_id=f"container-{number}")

    assert store.too_deep_for_others(f"layer-{LIMIT}") is None
    assert f"{LIMIT + 1} layers" in (store.too_deep_for_others(f"layer-{LIMIT + 1}") or "")

    place.containers_storage("mount", f"container-{LIMIT}")
    with pytest.raises(AssertionError, match="max depth exceeded"):
        place.containers_storage("mount", f"container-{LIMIT + 1}")
    with store.mounting(f"container-{LIMIT + 1}"):
        pass


@pytest.mark.parametrize("place", ["vfs"], indirect=True)
def test_where_every_layer_is_whole_their_number_does_not_matter(store: Store) -> None:
    top = None
    for _ in range(LIMIT + 1):
        top = store.create_layer(top, read_only=True).id

    assert store.too_deep_for_others(top) is None
