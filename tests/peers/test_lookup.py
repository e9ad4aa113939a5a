"""Which object is meant where several have one name."""

from __future__ import annotations

import io

from hostspec.store import Store
from tests.peers.clients import Place, require_program
from tests.store.tars import tar_of


def test_both_programs_mean_the_same_object_of_several_with_one_name(place: Place, store: Store) -> None:
    require_program("containers-storage")
    layer = store.import_layer(io.BytesIO(tar_of({"file": b""})), layer_id="the-layer")
    store.create_image(layer.id, image_id="the-image", names=["shared", "image"])
    store.create_container("the-image", container_id="the-container", names=["shared"])

    store.add_names("shared", ["ours"])
    place.containers_storage("add-names", "-n", "theirs", "shared")
    assert store.image("the-image").names == ("shared", "image", "ours", "theirs")
    assert store.container("the-container").names == ("shared",)

    store.add_names("the-layer", ["shared"])
    store.set_metadata("shared", "text")
    assert place.containers_storage("metadata", "-q", "shared") == "text"
    assert store.layer("the-layer").metadata == "text"
    # A container is what is mounted, and deleted, before anything else of its name.
    assert store.mount("shared") == place.containers_storage("mount", "the-container")
    store.unmount("shared", force=True)
    store.delete("shared")
    assert not store.has_container("the-container")
    assert store.has_image("the-image")
