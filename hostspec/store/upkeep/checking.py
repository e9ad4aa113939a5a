"""Looking for damage in a store: what the records say, what the driver has, and what is in the files.

Nothing is changed, and no lock is held while files are read; what was removed meanwhile is not reported.
(store.go and check.go of the Go library, which reports the same and some less.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.format.timestamps import nanoseconds
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import children_first, with_ancestors, with_descent
from hostspec.store.recovery import read_layers
from hostspec.store.upkeep.findings import CheckReport, Finding, Problem
from hostspec.store.upkeep.garbage import own_damage, records_are_hidden
from hostspec.store.upkeep.layer_checks import LayerChecks
from hostspec.store.upkeep.object_checks import data_of

__all__ = ["check"]

_SECOND = 1_000_000_000


class _Seen(NamedTuple):
    """The whole store at one moment."""

    layers: Snapshot[Layer]
    images: Snapshot[Image]
    containers: Snapshot[Container]
    in_driver: frozenset[str]
    """IDs of the layers that the driver has in this store."""

    @classmethod
    def now(cls, root: GraphRoot) -> _Seen:
        """Look, with all locks held together with other readers."""
        driver = root.driver
        with (
            root.layers.reading() as layers,
            root.images.reading() as images,
            root.containers.reading() as containers,
        ):
            return cls(layers, images, containers, frozenset(driver.list_layers()))

    def has(self, finding: Finding) -> bool:
        """Tell whether what was found damaged is still there."""
        if finding.problem is Problem.LAYER_UNACCOUNTED:
            return finding.id in self.in_driver and finding.id not in self.layers
        if finding.kind == "layer":
            return finding.id in self.layers
        return finding.id in (self.images if finding.kind == "image" else self.containers)


def check(root: GraphRoot, *, quick: bool, max_age: float) -> CheckReport:
    """Look for damage; see :meth:`hostspec.store.Store.check`."""
    read_layers(root)
    seen = _Seen.now(root)
    damage = (*own_damage(seen.layers), *own_damage(seen.images), *own_damage(seen.containers))
    about_layers = list(_check_layers(root, seen, quick=quick))
    damaged = {each.id: each for each in reversed(about_layers)}
    about_images = list(_check_images(root, seen, damaged))
    damaged_images = {
        each.id: each for each in reversed(about_images) if each.problem is not Problem.IMAGE_COPY_MISSING
    }
    findings = [*about_layers, *about_images, *_check_containers(root, seen, damaged, damaged_images)]
    if not damage and not records_are_hidden(root):
        # Else what cannot be seen may be what names them.
        findings += _unused(seen, max_age)
    afterwards = _Seen.now(root)
    return CheckReport(tuple(each for each in findings if afterwards.has(each)), damage)


def _check_layers(root: GraphRoot, seen: _Seen, *, quick: bool) -> Iterator[Finding]:
    checks = LayerChecks(root, seen.layers, trees=not quick)
    containers = {container.layer for container in seen.containers}
    for layer_id in reversed(children_first(seen.layers, seen.layers.by_id.keys())):
        layer = seen.layers.by_id[layer_id]
        yield from checks.data_of(layer)
        if layer.parent is not None and layer.parent not in seen.layers:
            detail = f"parent {layer.parent}"
            yield Finding("layer", layer.id, Problem.PARENT_MISSING, detail, layer.read_only)
        if layer.id in seen.in_driver or (layer.read_only and root.driver.exists(layer.id)):
            yield from checks.files_of(layer, is_containers=layer.id in containers)
        else:
            yield Finding("layer", layer.id, Problem.LAYER_NOT_IN_DRIVER, read_only=layer.read_only)


def _check_images(root: GraphRoot, seen: _Seen, damaged: dict[str, Finding]) -> Iterator[Finding]:
    """Find images with damaged data or layers.

    A damaged mapped copy is no damage of the image: another can be made of its top layer.
    """
    for image in seen.images:
        yield from data_of(root, image)
        if image.layer and image.layer not in seen.layers:
            detail = f"layer {image.layer}"
            yield Finding("image", image.id, Problem.IMAGE_LAYER_MISSING, detail, image.read_only)
        for layer in with_descent(seen.layers, image.layer):
            if layer.id in damaged:
                detail = str(damaged[layer.id])
                yield Finding("image", image.id, Problem.IMAGE_LAYER_DAMAGED, detail, image.read_only)
        for copy in image.mapped_layers:
            if copy not in seen.layers:
                detail = f"layer {copy}"
                yield Finding("image", image.id, Problem.IMAGE_COPY_MISSING, detail, image.read_only)


def _check_containers(
    root: GraphRoot, seen: _Seen, damaged: dict[str, Finding], damaged_images: dict[str, Finding]
) -> Iterator[Finding]:
    for container in seen.containers:
        yield from data_of(root, container)
        if container.image and container.image not in seen.images:
            detail = f"image {container.image}"
            yield Finding("container", container.id, Problem.CONTAINER_IMAGE_MISSING, detail)
        elif container.image in damaged_images:
            detail = str(damaged_images[container.image])
            yield Finding("container", container.id, Problem.CONTAINER_IMAGE_DAMAGED, detail)
        if container.layer and container.layer not in seen.layers:
            detail = f"layer {container.layer}"
            yield Finding("container", container.id, Problem.CONTAINER_LAYER_MISSING, detail)
        for layer in with_descent(seen.layers, container.layer):
            if layer.id in damaged:
                detail = str(damaged[layer.id])
                yield Finding("container", container.id, Problem.CONTAINER_LAYER_DAMAGED, detail)


def _unused(seen: _Seen, max_age: float) -> Iterator[Finding]:
    """Find layers without a record, and those that nothing uses and nobody is about to use."""
    tops = {layer for image in seen.images for layer in image.top_layers}
    used = with_ancestors(seen.layers, tops | {container.layer for container in seen.containers})
    oldest = time.time_ns() - round(max_age * _SECOND)
    for layer in seen.layers:
        if layer.id not in used and not layer.read_only and _made_before(layer, oldest):
            yield Finding("layer", layer.id, Problem.LAYER_UNREFERENCED)
    for layer_id in sorted(seen.in_driver):
        if layer_id not in seen.layers:
            yield Finding("layer", layer_id, Problem.LAYER_UNACCOUNTED)


def _made_before(layer: Layer, moment: int) -> bool:
    try:
        created = nanoseconds(layer.created)
    except ValueError:
        created = None
    return created is None or created < moment
