"""Setting big data items: the old one or the new one is there, whole, and the record tells of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from hostspec.store import Container, Image, Layer, Store
from hostspec.store.format.layout import Layout
from hostspec.store.graph_root import GraphRoot
from hostspec.testing.children import killed_before_step
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of

_OBJECTS: dict[str, Callable[[Store], Layer | Image | Container]] = {
    "layers": lambda store: store.layers()[0],
    "images": lambda store: store.image("image"),
    "containers": lambda store: store.containers()[0],
}


def _names(layout: Layout, kind: str, record: Layer | Image | Container) -> list[str]:
    directory = os.path.join(layout.root, f"{layout.driver}-{kind}", record.id)
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


@pytest.mark.parametrize("kind", _OBJECTS)
def test_whoever_dies_while_setting_one_leaves_the_old_one_or_the_new(
    store: Store, image: Image, layout: Layout, open_here: OpenStore, kind: str
) -> None:
    store.create_container(image.id)
    record = _OBJECTS[kind](store)
    store.set_big_data(record, "item", b"old")
    seen = []
    step, died = 0, True
    while died:
        step += 1
        died = killed_before_step(step, lambda: store.set_big_data(record, "item", b"new and longer"))
        with open_here() as other:
            assert not other.check()
            seen.append(other.big_data(record, "item"))
            assert faults_of(other) == []
            assert not any(name.startswith(".") for name in _names(layout, kind, record))
            if died:
                other.set_big_data(record, "item", b"old")
    assert set(seen) == {b"old", b"new and longer"}
    assert seen[-1] == b"new and longer"


@pytest.mark.parametrize("kind", _OBJECTS)
def test_whoever_dies_while_adding_one_leaves_it_or_nothing(
    store: Store, image: Image, layout: Layout, open_here: OpenStore, kind: str
) -> None:
    store.create_container(image.id)
    record = _OBJECTS[kind](store)
    added: list[str] = []
    step, died = 0, True
    while died:
        step += 1
        died = killed_before_step(step, partial(store.set_big_data, record, f"item{step}", b"new"))
        with open_here() as other:
            assert not other.check()
            added = [each for each in _OBJECTS[kind](other).big_data if each != "manifest"]
            assert [each for each in _names(layout, kind, record) if each != "manifest"] == sorted(added)
    assert added[-1] == f"item{step}"


def test_who_only_reads_sees_the_old_one_until_somebody_has_settled_it(
    store: Store, image: Image, layout: Layout, open_here: OpenStore
) -> None:
    """As after a process that died when it had recorded the new one: the file follows the record."""
    digest = f"sha256:{hashlib.sha256(b'new').hexdigest()}"
    with open_here(read_only=True) as reader:
        for step in count(1):
            assert killed_before_step(step, lambda: store.set_big_data(image, "manifest", b"new"))
            if reader.image("image").big_data_digests["manifest"] == digest:
                break
        assert reader.big_data(image, "manifest") == b"{}"
    assert store.layers()
    assert store.big_data(image, "manifest") == b"new"
    assert _names(layout, "images", image) == ["manifest"]


def test_what_another_program_wrote_meanwhile_stays(
    store: Store, image: Image, layout: Layout, graph_root: GraphRoot
) -> None:
    """Other programs settle nothing; what they recorded later counts."""
    for step in count(1):
        assert killed_before_step(step, lambda: store.set_big_data(image, "manifest", b"new"))
        if ".new-manifest" in _names(layout, "images", image):
            break
        store.layers()
    with graph_root.images.writing() as images:
        digests = {"manifest": f"sha256:{hashlib.sha256(b'theirs').hexdigest()}"}
        with open(os.path.join(layout.images, image.id, "manifest"), "wb") as file:
            file.write(b"theirs")
        images.put(image._replace(big_data_digests=digests, big_data_sizes={"manifest": 6}))
        images.save()
    assert not store.check()
    assert store.big_data(image, "manifest") == b"theirs"
    assert _names(layout, "images", image) == ["manifest"]
