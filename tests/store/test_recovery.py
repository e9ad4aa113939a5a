from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint, mount_points
from hostspec.store import Image, Store, open_store
from hostspec.store.format.records import INCOMPLETE, Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.unsettled import Note
from hostspec.testing.children import killed_before_step
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of, ids_in
from tests.store.tars import MAP, tar_of

DRIVERS = ["vfs", "overlay"]
DEATHS = [
    (what, hook, event)
    for what, hooks in {
        "import": ["create", "apply_diff", "seal", "commit"],
        "create": ["create", "commit"],
        "container": ["create", "commit"],
        "mapped": ["create_from_template", "create", "commit"],
        "delete-container": ["remove", "reclaim"],
        "delete-image": ["remove"],
        "wipe": ["remove", "cleanup"],
    }.items()
    for hook in hooks
    for event in ("started", "finished")
]


def fill(store: Store) -> None:
    base = store.import_layer(io.BytesIO(tar_of({"etc": None, "etc/name": b"base\n"})))
    top = store.import_layer(io.BytesIO(tar_of({"etc/name": b"top\n"}, uid=10, gid=20)), base.id)
    unused = store.create_layer(base.id)
    store.create_image(top.id, names=["image"], big_data={"manifest": b"{}"})
    store.create_image(unused.id, names=["unused"], big_data={"manifest": b"{}"})
    mapped = store.create_container("unused", idmap=IdMap.parse([MAP]), strategy="template")
    store.delete_container(mapped.id)
    store.create_container("image", names=["container"])


def die(store: Store, what: str, hook: str, event: str) -> None:
    root = str(Path(__file__).parents[2])
    words = [store.root, store.run_root, store.driver_name, hook, event, what]
    finished = subprocess.run([sys.executable, "-m", "tests.store.dying", *words], cwd=root, check=False)
    assert finished.returncode == -signal.SIGKILL


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("what", "hook", "event"), DEATHS)
def test_whoever_dies_leaves_a_whole_store(
    open_here: OpenStore, driver: str, what: str, hook: str, event: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    with open_here(driver=driver) as store:
        fill(store)
        before = ids_in(store)
        die(store, what, hook, event)
        assert faults_of(store) == []
        if what not in {"delete-container", "delete-image", "wipe", "mapped"}:
            # Nothing was acknowledged, so nothing need be there; what was there before is.
            assert before <= ids_in(store)
        elif what != "wipe":
            assert store.has_image("image")
        assert [image.names for image in store.images()] in (
            [("image",), ("unused",)],
            [("image",)],
            [],
        )


def test_whoever_dies_at_any_step_of_a_wipe_leaves_a_whole_store(store: Store) -> None:
    for step in count(1):
        layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
        image = store.create_image(layer.id)
        store.create_container(image.id)
        if not killed_before_step(step, store.wipe):
            break
        present = [kind for kind in (store.containers(), store.images(), store.layers()) if kind]
        assert [len(kind) for kind in present] in ([1, 1, 2], [1, 1], []), "a layer was left behind"
        assert faults_of(store) == []
        assert not store.check(max_age=0)
        store.wipe()
    assert ids_in(store) == set()


def test_an_incomplete_layer_goes_when_it_is_seen(store: Store, image: Image, graph_root: GraphRoot) -> None:
    """As another program leaves it, which makes a layer under its lock and flags it until it is done."""
    layer = store.create_layer(image.layer)
    with graph_root.layers.writing() as layers:
        layers.put(layer._replace(flags={INCOMPLETE: True}))
        layers.save()
    assert layer.id not in {each.id for each in store.layers()}
    assert faults_of(store) == []


def test_who_only_reads_leaves_an_incomplete_layer_alone(
    store: Store, graph_root: GraphRoot, open_here: OpenStore
) -> None:
    layer = store.create_layer()
    with graph_root.layers.writing() as layers:
        layers.put(layer._replace(flags={INCOMPLETE: True}))
        layers.save()
    with open_here(read_only=True) as reader:
        assert reader.layer(layer.id).incomplete
        assert reader.layer(layer.id).incomplete


def test_an_incomplete_layer_that_others_stand_on_stays(
    store: Store, image: Image, graph_root: GraphRoot
) -> None:
    top = store.layer(image.layer or "")
    base = store.layer(top.parent or "")
    with graph_root.layers.writing() as layers:
        layers.put(base._replace(flags={INCOMPLETE: True}))
        layers.save()
    assert {layer.id for layer in store.layers()} == {base.id, top.id}


def test_a_note_about_what_is_settled_only_goes(store: Store, image: Image, graph_root: GraphRoot) -> None:
    notes = [Note("layer", image.layer or "", "", "", ""), Note("image", image.id)]
    with pytest.raises(RuntimeError), graph_root.unsettled.noting(notes):
        raise RuntimeError
    assert store.has_layer(image.layer or "")
    assert store.images() == (image,)
    assert faults_of(store) == []


def test_a_layer_that_was_made_again_is_not_taken_for_the_dead_one(
    store: Store, graph_root: GraphRoot
) -> None:
    store.create_layer(layer_id="again")
    note = Note("layer", "again", "2020-01-01T00:00:00Z", "image", "gone")
    with pytest.raises(RuntimeError), graph_root.unsettled.noting([note]):
        raise RuntimeError
    assert store.has_layer("again")
    assert not graph_root.unsettled


def test_a_layer_that_somebody_uses_is_not_taken_for_a_left_over(
    store: Store, image: Image, graph_root: GraphRoot
) -> None:
    top = store.layer(image.layer or "")
    note = Note("layer", top.id, top.created, "container", "never made")
    with pytest.raises(RuntimeError), graph_root.unsettled.noting([note]):
        raise RuntimeError
    assert store.has_layer(top.id)
    assert faults_of(store) == []


def test_an_unfinished_note_goes(store: Store, graph_root: GraphRoot) -> None:
    store.create_layer()
    path = Path(graph_root.layout.own, "unsettled/layer-x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("layer\nx")
    store.layers()
    assert not path.exists()


def test_records_that_only_the_driver_lacks_are_seen(store: Store, graph_root: GraphRoot) -> None:
    """So that the checks above can fail."""
    with graph_root.layers.writing() as layers:
        layers.put(Layer(id="nowhere", parent="gone"))
        layers.save()
    assert faults_of(store) == [
        "layer nowhere lacks its parent gone",
        "layer nowhere is recorded and not there",
    ]
    assert json.loads(Path(store.root, "vfs-layers/layers.json").read_text())[0]["id"] == "nowhere"


@pytest.mark.parametrize("what", ["mount", "unmount"])
def test_who_dies_between_a_mount_and_its_count_leaves_neither(open_here: OpenStore, what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_here(driver="overlay") as store:
        fill(store)
        path = os.path.join(store.driver.home, store.container("container").layer, "merged")
        if what == "unmount":
            assert store.mount("container") == path
        die(store, what, what, "finished")
        store.layers()
        assert not is_mountpoint(path)
        assert store.mounted("container") == 0
        assert faults_of(store) == []


@contextmanager
def store_with_a_shifted_container(directory: str, driver: str) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount under an ID map")
    with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=driver) as store:
        shifting = store.driver.supports_shifting(IdMap.parse([MAP]))
        if not shifting.possible:
            require_or_skip("shifting", shifting.reason)
        layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"})))
        image = store.create_image(layer.id)
        store.create_container(image.id, names=["container"], idmap=IdMap.parse([MAP]))
        yield store


@pytest.mark.parametrize("what", ["mount", "unmount"])
def test_the_users_of_a_mount_are_counted_right_after_a_death(open_here: OpenStore, what: str) -> None:
    """By the very next command, whichever that is."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_here(driver="overlay") as store:
        fill(store)
        if what == "unmount":
            store.mount("container")
        die(store, what, what, "finished")
        path = store.mount("container")
        assert store.mounted("container") == 1
        assert store.unmount("container") is True
        assert not is_mountpoint(path)
        if what == "unmount":
            store.mount("container")
        die(store, what, what, "finished")
        with pytest.raises(InvalidRequest, match="is not mounted"):
            store.unmount("container")
        assert not is_mountpoint(path)


@pytest.mark.parametrize("driver", ["vfs", "overlay", "btrfs"])
@pytest.mark.parametrize("what", ["mount", "unmount"])
@pytest.mark.parametrize("event", ["started", "finished"])
def test_who_dies_at_a_shifted_mount_leaves_no_mount_after_the_next_command(
    request: pytest.FixtureRequest, driver: str, what: str, event: str
) -> None:
    directory = directory_for(driver, request)
    with store_with_a_shifted_container(directory, driver) as store:
        if what == "unmount":
            store.mount("container")
        die(store, what, what, event)
        store.layers()
        if store.mounted("container"):
            assert what == "unmount"
            assert store.unmount("container") is True
        left = mount_points(directory)
        assert [path for path in left if path != store.driver.home] == []  # which it may bind on itself
        store.delete_container("container")
        assert faults_of(store) == []
        store.wipe()
    assert list(mount_points(directory)) == []


@pytest.mark.parametrize("driver", ["vfs", "overlay", "btrfs"])
@pytest.mark.parametrize("event", ["started", "finished"])
def test_who_dies_while_reading_a_shifted_container_leaves_no_mount(
    request: pytest.FixtureRequest, driver: str, event: str
) -> None:
    """Through the private mount of which the fallbacks take one."""
    directory = directory_for(driver, request)
    with store_with_a_shifted_container(directory, driver) as store:
        die(store, "apply", "mount", event)
    with open_store(root=store.root, run_root=store.run_root, driver=driver) as again:
        again.delete_container("container")
        assert [path for path in mount_points(directory) if path != again.driver.home] == []
        assert faults_of(again) == []
        again.wipe()
    assert list(mount_points(directory)) == []
