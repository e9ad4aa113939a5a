"""What is true of a store between any two operations, whatever has died in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hostspec.kernel.mountinfo import mount_points
from hostspec.store import Store
from hostspec.store.format.layout import Layout
from hostspec.store.graph_root import GraphRoot

RECORD_FILES = frozenset(
    {
        "layers.json", "layers.lock", "volatile-layers.json", "hostspec",
        "images.json", "images.lock",
        "containers.json", "containers.lock", "volatile-containers.json",
    },
)  # fmt: skip


def faults_of(store: Store) -> list[str]:
    """Return everything that is wrong with a store that nobody uses at the moment."""
    with GraphRoot(Layout(store.root, store.run_root, store.driver_name)).editing(with_driver=False):
        pass  # whoever writes next deletes the temporary file of one who was killed while writing
    return [
        *_faults_of_layers(store),
        *_faults_of_users(store),
        *_left_in_driver(store),
        *_left_in_directories(store),
    ]


def ids_in(store: Store) -> set[str]:
    """Return the IDs of everything in a store."""
    ids = {layer.id for layer in store.layers()}
    ids |= {image.id for image in store.images()}
    return ids | {container.id for container in store.containers()}


def _faults_of_layers(store: Store) -> Iterator[str]:
    layers = {layer.id for layer in store.layers()}
    for layer in store.layers():
        if layer.incomplete:
            yield f"layer {layer.id} is incomplete"
        if layer.parent is not None and layer.parent not in layers:
            yield f"layer {layer.id} lacks its parent {layer.parent}"


def _faults_of_users(store: Store) -> Iterator[str]:
    layers = {layer.id for layer in store.layers()}
    images = {image.id for image in store.images()}
    for image in store.images():
        for layer_id in image.top_layers:
            if layer_id not in layers:
                yield f"image {image.id} lacks its layer {layer_id}"
        for key in image.big_data:
            if len(store.big_data(image, key)) != image.big_data_sizes[key]:
                yield f"image {image.id} has a part of its item {key}"
    for container in store.containers():
        if container.layer not in layers:
            yield f"container {container.id} lacks its layer {container.layer}"
        if container.image is not None and container.image not in images:
            yield f"container {container.id} lacks its image {container.image}"


def _left_in_driver(store: Store) -> Iterator[str]:
    recorded = {layer.id for layer in store.layers()}
    present = set(store.driver.list_layers())
    for layer_id in recorded - present:
        yield f"layer {layer_id} is recorded and not there"
    for layer_id in present - recorded:
        yield f"layer {layer_id} is there and not recorded"
    store.close()  # what was put aside goes now, or with whoever opens the store next
    for place in (store.driver.home, os.path.join(store.run_root, store.driver_name)):
        # Our own area may be there, with the directories in which it keeps things, but with no file.
        for directory, _, files in os.walk(os.path.join(place, "tempdirs")):
            for file in files:
                if not file.startswith("lock-"):
                    yield f"{directory} has {file}"


def _left_in_directories(store: Store) -> Iterator[str]:
    name = store.driver_name
    known = ids_in(store)
    for kind in ("layers", "images", "containers"):
        directory = os.path.join(store.root, f"{name}-{kind}")
        for entry in os.listdir(directory) if os.path.isdir(directory) else ():
            if entry not in RECORD_FILES and entry.removesuffix(".tar-split.gz") not in known:
                yield f"{directory} has {entry}"
    own = os.path.join(store.root, f"{name}-layers", "hostspec")
    for directory, _, files in os.walk(own):
        for file in files:
            is_copys = file in known and os.path.basename(directory) == "copies"
            if not is_copys and (directory, file) != (own, "reserve"):
                yield f"{directory} has {file}"
    locks = os.path.join(store.run_root, f"{name}-locks")
    for entry in os.listdir(locks) if os.path.isdir(locks) else ():
        yield f"{locks} has {entry}"
    # Other programs bind the driver's home on itself.
    mounted = set(mount_points(store.root)) - {store.driver.home}
    if not any(store.mounted(layer.id) for layer in store.layers()):
        for path in mounted:
            yield f"{path} is mounted"
