"""A file system that becomes read-only in the middle of something, as after an error of its device."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress

import pytest

from hostspec.errors import HostspecError
from hostspec.idmap import IdMap
from hostspec.store import Store
from hostspec.testing.children import refused_from_step
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of
from tests.store.tars import MAP, tar_of

_TAR = tar_of({"etc": None, "etc/name": b"content\n"})
_WORKS: dict[str, Callable[[Store], object]] = {
    "import": lambda store: store.import_layer(io.BytesIO(_TAR)),
    "image": lambda store: store.create_image(store.image("image").layer, big_data={"manifest": b"{}"}),
    "item": lambda store: store.set_big_data(store.image("image"), "manifest", b"{1}"),
    "names": lambda store: store.add_names("image", ["another"]),
    "container": lambda store: store.create_container("image"),
    "mapped": lambda store: store.create_container("image", idmap=IdMap.parse([MAP]), strategy="template"),
    "directory": lambda store: store.data_directory(store.container("container")),
    "mount": lambda store: store.mount("container"),
    "shutdown": lambda store: store.shutdown(force=True),
    "diff": lambda store: list(store.changes(store.container("container").layer)),
    "space": lambda store: store.disk_space(),
    "delete-container": lambda store: store.delete_container("container"),
    "delete-image": lambda store: store.delete_image("unused"),
    "unused": lambda store: store.remove_unused_copies(0),
    "garbage": lambda store: store.collect_garbage(),
    "wipe": Store.wipe,
}


def _complete(store: Store) -> None:
    """Have everything there that the works need."""
    if not store.has_image("image"):
        layer = store.import_layer(io.BytesIO(_TAR))
        store.create_image(layer.id, names=["image"], big_data={"manifest": b"{}"})
    if not store.has_image("unused"):
        store.create_image(store.create_layer().id, names=["unused"], big_data={"manifest": b"{}"})
    if not store.containers():
        store.create_container("image", names=["container"])


@pytest.mark.parametrize("what", _WORKS)
def test_what_becomes_read_only_is_told_by_name_and_leaves_a_whole_store(
    open_here: OpenStore, store: Store, what: str
) -> None:
    def work() -> None:
        with suppress(HostspecError), open_here() as opened:
            _WORKS[what](opened)

    step, refused = 0, True
    while refused:
        step += 1
        _complete(store)
        store.close()
        refused = refused_from_step(step, work)
        store.shutdown(force=True)
        assert faults_of(store) == []
        assert not store.check()
