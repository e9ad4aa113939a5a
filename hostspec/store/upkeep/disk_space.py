"""What a store occupies: by what its layers are for, and as a whole."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hostspec.disk_usage import joined, length_of, measure_tree
from hostspec.errors import HostspecError, Unknown, failing
from hostspec.store.copies.listing import copies_of
from hostspec.store.format.records import Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.recovery import read_layers
from hostspec.values import DiskUsage

__all__ = ["DiskSpace", "LayersSpace", "LimitedContainer", "disk_space"]

Runs = tuple[tuple[int, int], ...]

IMAGES, COPIES, CONTAINERS, OTHERS = "images", "mapped copies", "containers", "others"


class LayersSpace(NamedTuple):
    """What the layers of one kind occupy."""

    kind: str
    """``"images"``, ``"mapped copies"``, ``"containers"`` or ``"others"``."""
    layers: int
    """How many there are."""
    unused: int
    """On how many of them no container stands, directly or on layers above; 0 for containers."""
    exclusive_bytes: int
    """What the removal of all of them together would free."""
    unused_bytes: int
    """What the removal of the unused ones together would free."""


class LimitedContainer(NamedTuple):
    """A container whose layer may not grow for ever."""

    container_id: str
    """Its ID."""
    names: tuple[str, ...]
    """Its names."""
    usage: DiskUsage
    """What its layer occupies and may occupy."""


class DiskSpace(NamedTuple):
    """What a store occupies."""

    rows: tuple[LayersSpace, ...]
    """One for each kind."""
    exclusive_bytes: int
    """Bytes in the driver's home that only one file has."""
    shared_bytes: int
    """Bytes in it that several files share, each counted once."""
    inodes: int
    """Its inodes."""
    limited: tuple[LimitedContainer, ...] = ()
    """The containers that have limits."""

    @property
    def total_bytes(self) -> int:
        """What the driver's home occupies; what mounts show in it is not counted again."""
        return self.exclusive_bytes + self.shared_bytes


def disk_space(root: GraphRoot) -> DiskSpace:
    """Measure a store; see :meth:`hostspec.store.Store.disk_space`."""
    layers = [layer for layer in read_layers(root) if not layer.read_only]
    copies = {each for image in root.images.read() for each in copies_of(root, image)}
    containers = root.containers.read()
    own = {container.layer for container in containers}
    tops = {image.layer for image in root.images.read()}
    parents = {layer.id: layer.parent for layer in layers}
    of_images = _with_parents(parents, tops | copies) - copies - own
    used = _with_parents(parents, own)
    kinds = {
        IMAGES: of_images,
        COPIES: copies - own,
        CONTAINERS: own,
        OTHERS: parents.keys() - of_images - copies - own,
    }
    group_of = {each: (kind, each in used) for kind, members in kinds.items() for each in members}
    usages: dict[str, DiskUsage] = {}
    groups: defaultdict[tuple[str, bool], _Group] = defaultdict(_Group)
    for layer in layers:
        usage = _usage_of(root, layer)
        if usage is None:
            continue
        groups[group_of[layer.id]].add(usage)
        usages[layer.id] = usage._replace(shared_extents=None)  # which are many
    rows = tuple(_row(kind, groups) for kind in kinds)
    whole = _whole(root)
    return DiskSpace(
        rows,
        whole.exclusive_bytes,
        whole.shared_bytes,
        whole.inodes,
        limited=tuple(
            LimitedContainer(each.id, tuple(each.names), usages[each.layer])
            for each in containers
            if each.layer in usages and usages[each.layer].is_limited
        ),
    )


def _usage_of(root: GraphRoot, layer: Layer) -> DiskUsage | None:
    """Return what a layer occupies, or ``None`` if it is gone: removed meanwhile, or lost."""
    try:
        return root.driver.disk_usage(layer.id)
    except Unknown:
        return None
    except HostspecError:
        if layer.id in root.layers.read():
            raise
        return None


class _Group:
    """What layers occupy together."""

    def __init__(self) -> None:
        self.layers = 0
        self.exclusive = 0
        self.shared: dict[str, Runs] = {}

    def add(self, usage: DiskUsage) -> None:
        """Add a layer."""
        self.layers += 1
        self.exclusive += usage.exclusive_bytes
        if usage.shared_extents is not None:
            device, runs = usage.shared_extents
            self.shared[device] = joined((*self.shared.get(device, ()), *runs))


def _row(kind: str, groups: Mapping[tuple[str, bool], _Group]) -> LayersSpace:
    used, unused = groups.get((kind, True), _Group()), groups.get((kind, False), _Group())
    return LayersSpace(
        kind=kind,
        layers=used.layers + unused.layers,
        unused=unused.layers,
        exclusive_bytes=_freed_by([used, unused], groups.values()),
        unused_bytes=_freed_by([unused], groups.values()),
    )


def _freed_by(removed: Sequence[_Group], everything: Iterable[_Group]) -> int:
    """Return what is free once groups are gone: their own bytes, and those that only they share."""
    every = list(everything)
    rest = [each for each in every if each not in removed]
    return sum(each.exclusive for each in removed) + _shared_by(every) - _shared_by(rest)


def _shared_by(groups: Sequence[_Group]) -> int:
    devices = {device for each in groups for device in each.shared}
    return sum(
        length_of(joined(run for each in groups for run in each.shared.get(device, ()))) for device in devices
    )


def _with_parents(parents: Mapping[str, str | None], tops: Iterable[str | None]) -> set[str]:
    found: set[str] = set()
    for top in tops:
        layer = top
        while layer is not None and layer not in found:
            found.add(layer)
            layer = parents.get(layer)
    return found


def _whole(root: GraphRoot) -> DiskUsage:
    homes = dict.fromkeys((root.layout.home, root.layout.image_home))
    usages = [_measured(home) for home in homes if os.path.isdir(home)]
    return DiskUsage(
        exclusive_bytes=sum(each.exclusive_bytes for each in usages),
        shared_bytes=sum(each.shared_bytes for each in usages),
        inodes=sum(each.inodes for each in usages),
    )


def _measured(home: str) -> DiskUsage:
    with failing(f"measure {home}"):
        return measure_tree(home, blocks_are_shared=_can_share_blocks(home))


def _can_share_blocks(home: str) -> bool:
    from hostspec.kernel.reflink import supports_reflinks  # noqa: PLC0415

    try:
        return supports_reflinks(home)
    except OSError:
        return False  # nothing can be tried where nothing can be written, and people look for what fills it
