"""No lock is held while content moves."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.observers import Operation
from hostspec.store import Container, Image, Layer, Store, open_store
from hostspec.store.format.unnamed_files import UnnamedFile
from hostspec.store.graph_root import GraphRoot
from tests.store.tars import MAP, tar_of


class Watching(io.BytesIO):
    """A stream that counts how often others could write to the store while it was read."""

    def __init__(self, content: bytes, root: GraphRoot) -> None:
        super().__init__(content)
        self._root = root
        self.times = 0

    def read(self, size: int | None = -1, /) -> bytes:
        with self._root.editing(with_driver=False), self._root.mounts.writing():
            self.times += 1
        return super().read(size)


def test_others_may_write_while_a_layer_is_imported(store: Store, graph_root: GraphRoot) -> None:
    stream = Watching(tar_of({"file": b"x" * 3_000_000}), graph_root)
    layer = store.import_layer(stream)
    assert stream.times > 3
    assert store.has_layer(layer.id)


def test_a_layer_is_seen_by_nobody_before_it_is_whole(store: Store, graph_root: GraphRoot) -> None:
    seen: list[list[str]] = []

    class Looking(Watching):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append([*(layer.id for layer in self._root.layers.read()), *store.driver.list_layers()])
            return super().read(size)

    store.import_layer(Looking(tar_of({"file": b"x" * 3_000_000}), graph_root))
    assert len(seen) > 3
    assert all(each == [] for each in seen)


def test_others_may_write_while_a_mapped_copy_is_made(
    store: Store, image: Image, graph_root: GraphRoot
) -> None:
    times = 0

    def in_the_middle(_: object) -> None:
        nonlocal times
        with graph_root.editing(with_driver=False), graph_root.mounts.writing():
            times += 1

    store.create_container(image.id, idmap=IdMap.parse([MAP]), progress=in_the_middle)
    assert times > 0


@pytest.mark.parametrize("kind", ["layer", "image", "container", "new image"])
def test_others_may_write_while_an_item_is_written(
    store: Store, image: Image, graph_root: GraphRoot, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    times = 0
    sync = UnnamedFile.sync

    def in_the_middle(unnamed: UnnamedFile) -> None:
        nonlocal times
        with graph_root.editing(with_driver=False):
            times += 1
        sync(unnamed)

    records: dict[str, Layer | Image | Container] = {
        "layer": store.layer(image.layer or ""),
        "image": image,
        "container": store.create_container(image.id),
    }
    monkeypatch.setattr(UnnamedFile, "sync", in_the_middle)
    record = records.get(kind)
    if record is None:
        record = store.create_image(image.layer, big_data={"item": b"content"})
    else:
        store.set_big_data(record, "item", b"content")
    assert times == 1
    assert store.big_data(record, "item") == b"content"


def test_others_may_write_while_a_layer_is_sealed(graph_root: GraphRoot, tmp_path: Path) -> None:
    """What a driver does with a layer that is filled may take as long as the filling."""
    seen: list[str] = []

    class Looking:
        def started(self, operation: Operation) -> None:
            if operation.name == "seal":
                with graph_root.editing(with_driver=False), graph_root.mounts.writing():
                    seen.append(operation.layer_id)

        def finished(self, operation: Operation, error: BaseException | None) -> None: ...

    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    with open_store(
        root=str(tmp_path / "graph"), run_root=str(tmp_path / "run"), driver="vfs", observers=[Looking()]
    ) as store:
        layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
        image = store.create_image(layer.id)
        copy = store.create_container(image.id, idmap=IdMap.parse([MAP]), strategy="copy")
        assert seen == [layer.id, *store.image(image.id).mapped_layers, copy.layer]


def test_a_synced_store_works_like_any_other(store: Store) -> None:
    with open_store(root=store.root, run_root=store.run_root, driver="vfs", sync="filesystem") as synced:
        layer = synced.import_layer(io.BytesIO(tar_of({"file": b"x"})))
    with store.mounting(layer.id) as path:
        assert os.listdir(path) == ["file"]
