"""Containers that are mounted under an ID map, as the store does it for a driver that shifts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import read_tree
from hostspec.testing.requirements import skip_by_probe
from hostspec.testing.tree import Tree
from hostspec.values import CreateOptions, LayerRef, MountOptions, StoredIds

__all__ = ["create_container", "need_shifting", "read_shifted", "reference_to", "shifted"]


def need_shifting(driver: GraphDriver, idmap: IdMap) -> StoredIds:
    """Return which IDs a shifted mount stores, or skip the test with the driver's reason."""
    shifting = driver.supports_shifting(idmap)
    if not shifting.possible:
        skip_by_probe(f"the driver does not shift: {shifting.reason}")
    return shifting.stored


def create_container(driver: GraphDriver, image: Made, idmap: IdMap) -> None:
    """Make the layer ``container`` on an image whose files are unmapped."""
    driver.create("container", image.layer, CreateOptions(idmap=idmap))
    driver.commit("container")


def reference_to(container: str, idmap: IdMap, stored: StoredIds) -> LayerRef:
    """Return how the store refers to a shifted container: by what its own files carry on disk."""
    if stored is StoredIds.MAPPED:
        return LayerRef(container, idmap, shifted=True)
    return LayerRef(container)


@contextmanager
def shifted(driver: GraphDriver, place: str, idmap: IdMap) -> Iterator[None]:
    """Mount ``container`` under a map at an empty directory, for the time of a ``with`` block."""
    driver.mount("container", MountOptions(target=place, idmap=idmap))
    try:
        yield
    finally:
        driver.unmount("container", place)


def read_shifted(layers: Layers, image: Made, idmap: IdMap) -> Tree:
    """Return what a new container on an image shows under a map; or skip the test."""
    need_shifting(layers.driver, idmap)
    create_container(layers.driver, image, idmap)
    with (
        tempfile.TemporaryDirectory(dir=os.path.dirname(layers.driver.home)) as place,
        shifted(layers.driver, place, idmap),
    ):
        return read_tree(place, idmap)
