"""Mapped copies that nothing uses are removed, and no others."""

from __future__ import annotations

import os
import time

import pytest

from hostspec.idmap import IdMap
from hostspec.observers import Operation
from hostspec.store import Image, Store, open_store
from hostspec.store.format.layout import Layout
from hostspec.store.graph_root import GraphRoot
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of
from tests.store.tars import MAP, OTHER_MAP

DAY = 86_400
MAPPED = IdMap.parse([MAP])
OTHERWISE = IdMap.parse([OTHER_MAP])


def copy_for(store: Store, image: Image, idmap: IdMap) -> str:
    layer = store.warm(image.id, idmap, strategy="copy").layer
    assert layer is not None
    return layer.id


def age(store: Store, layer_id: str, days: int) -> None:
    """Make a copy look as if it had been used so many days ago."""
    then = time.time() - days * DAY
    os.utime(os.path.join(store.root, f"{store.driver_name}-layers/hostspec/copies", layer_id), (then, then))


def test_copies_that_were_not_used_for_so_long_are_removed(store: Store, image: Image) -> None:
    old, young = copy_for(store, image, MAPPED), copy_for(store, image, OTHERWISE)
    age(store, old, 8)
    age(store, young, 6)
    assert store.remove_unused_copies(7 * DAY, dry_run=True) == (old,)
    assert store.has_layer(old)
    assert store.remove_unused_copies(7 * DAY) == (old,)
    assert not store.has_layer(old)
    assert store.image(image.id).mapped_layers == (young,)
    assert old not in store.driver.list_layers()
    assert os.listdir(os.path.join(store.root, "vfs-layers/hostspec/copies")) == [young]
    assert faults_of(store) == []


def test_a_copy_that_a_container_stands_on_stays_however_old_it_is(store: Store, image: Image) -> None:
    container = store.create_container(image.id, idmap=MAPPED, strategy="copy")
    (copy,) = store.image(image.id).mapped_layers
    age(store, copy, 1000)
    assert store.remove_unused_copies(0) == ()
    store.delete_container(container.id)
    assert store.remove_unused_copies(DAY) == ()  # it was in use until just now
    assert store.remove_unused_copies(0) == (copy,)


def test_a_copy_that_is_mounted_or_stood_on_stays(store: Store, image: Image) -> None:
    mounted, parent = copy_for(store, image, MAPPED), copy_for(store, image, OTHERWISE)
    store.create_layer(parent, layer_id="child")
    with store.mounting(mounted):
        assert store.remove_unused_copies(0) == ()
    assert store.remove_unused_copies(0) == (mounted,)
    store.delete_layer("child")
    assert store.remove_unused_copies(0) == (parent,)


def test_a_copy_that_is_another_image_s_own_layer_stays(store: Store, image: Image) -> None:
    copy = copy_for(store, image, MAPPED)
    store.create_image(copy)
    assert store.remove_unused_copies(0) == ()


def test_a_copy_without_a_note_counts_from_when_it_was_made(store: Store, image: Image) -> None:
    copy = copy_for(store, image, MAPPED)
    os.unlink(os.path.join(store.root, "vfs-layers/hostspec/copies", copy))
    assert store.remove_unused_copies(DAY) == ()
    assert store.remove_unused_copies(0) == (copy,)


def test_a_copy_on_which_another_stands_in_the_driver_goes_after_it(open_here: OpenStore) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_here(driver="overlay") as store:
        image = store.create_image(store.create_layer().id)
        below = store.create_container(image.id, idmap=MAPPED, strategy="template")
        (copy,) = store.image(image.id).mapped_layers
        odd = store.create_image(copy)
        above = store.create_container(odd.id, idmap=OTHERWISE, strategy="template")
        (hidden_child,) = store.image(odd.id).mapped_layers
        for container in (below, above):
            store.delete_container(container.id)
        store.delete(odd.id)  # the record only
        with GraphRoot(Layout(store.root, store.run_root, store.driver_name)).images.writing() as images:
            images.put(images.get(image.id)._replace(mapped_layers=(copy, hidden_child)))
            images.save()
        assert store.remove_unused_copies(0) == (copy, hidden_child)
        assert store.driver.list_layers() == [image.layer]
        store.wipe()


def test_a_copy_that_stays_because_of_the_driver_stays_recorded(open_here: OpenStore) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_here(driver="overlay") as store:
        image = store.create_image(store.create_layer().id)
        store.warm(image.id, MAPPED, strategy="template")
        (copy,) = store.image(image.id).mapped_layers
        other = store.warm(image.id, OTHERWISE, strategy="copy").layer
        assert other is not None
        odd = store.create_image(copy)
        store.create_container(odd.id, idmap=OTHERWISE, strategy="template")
        store.delete(odd.id)  # the record only, as whoever doesn't know better may do
        assert store.remove_unused_copies(0) == (other.id,)
        assert store.image(image.id).mapped_layers == (copy,)
        assert store.has_layer(copy)
        store.wipe()


def test_unused_copies_go_by_themselves_where_the_option_says_so(
    open_here: OpenStore, store: Store, image: Image
) -> None:
    old = copy_for(store, image, MAPPED)
    age(store, old, 8)
    container = store.create_container(image.id, idmap=OTHERWISE, strategy="copy")
    assert store.has_layer(old)
    with open_here("hostspec.remove_mapped_unused_for=7d") as tidy:
        tidy.delete_container(container.id)
        assert not tidy.has_layer(old)
        (left,) = tidy.image(image.id).mapped_layers
        age(tidy, left, 8)
        tidy.create_container(image.id, idmap=MAPPED, strategy="copy")
        assert not tidy.has_layer(left)


class Remover:
    """Removes a layer by another program's hand, once, when the driver is asked to make one on it."""

    def __init__(self, open_other: OpenStore, layer_id: str) -> None:
        self._open_other = open_other
        self._left = [layer_id]

    def started(self, operation: Operation) -> None:
        if operation.name == "create" and self._left:
            with self._open_other() as other:
                other.delete_layer(self._left.pop())

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        del operation, error


def test_a_copy_that_goes_while_a_container_is_made_on_it_is_made_again(
    store: Store, image: Image, open_here: OpenStore
) -> None:
    copy = copy_for(store, image, MAPPED)
    with open_store(
        root=store.root,
        run_root=store.run_root,
        driver="vfs",
        options=["hostspec.shift=native-only"],
        observers=[Remover(open_here, copy)],
    ) as observed:
        container = observed.create_container(image.id, idmap=MAPPED)
    (new,) = store.image(image.id).mapped_layers
    assert store.layer(container.layer).parent == new != copy
    assert faults_of(store) == []
