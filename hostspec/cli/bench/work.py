"""What every driver does: the standard work, through the façade, as the store would ask for it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import NamedTuple

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.kernel.filesystems import sync_filesystem
from hostspec.values import ApplyOptions, CreateOptions, LayerRef, MountOptions, ShiftOptions

__all__ = ["WORKS", "Samples", "measure"]

READ_SIZE = 1 << 17
MAP_SIZE = 65536
CHANGED_FILES = 10

WORKS = (
    "apply a layer",
    "read it as a tar",
    "empty child",
    "mount and unmount it",
    "list its changes",
    "copy, same owners",
    "copy, mapped",
    "child, mapped by shift",
    "disk usage",
    "remove and reclaim",
)
"""Names of the works, in the order in which they are done."""

Samples = dict[str, list[float]]
"""Seconds, by work; a work that the driver does not do is missing."""

_maps = count(1)


class _Layers(NamedTuple):
    """Makes layers that nobody else has."""

    driver: GraphDriver

    def create(self, parent: LayerRef | None, tar: str | None = None, *, read_only: bool = False) -> LayerRef:
        layer = LayerRef(os.urandom(32).hex())
        self.driver.create(layer.layer_id, parent, CreateOptions(read_only=read_only))
        if tar is not None:
            with open(tar, "rb") as stream:
                self.driver.apply_diff(layer.layer_id, stream, ApplyOptions())
        self._commit(layer.layer_id)
        return layer

    def copy(self, template: LayerRef, idmap: IdMap) -> LayerRef:
        layer_id = os.urandom(32).hex()
        options = CreateOptions(idmap=idmap, read_only=True)
        carried = self.driver.create_from_template(layer_id, template, None, options)
        if carried != idmap:
            self.driver.update_idmap(layer_id, carried, idmap, ShiftOptions())
        self._commit(layer_id)
        return LayerRef(layer_id, idmap)

    def _commit(self, layer_id: str) -> None:
        self.driver.seal(layer_id)
        self.driver.commit(layer_id)


def measure(driver: GraphDriver, tar: str, repeat: int) -> Samples:
    """Do all works, once to warm up and then as often as is wanted.

    Args:
        driver: An opened driver, whose home is empty.
        tar: Path of a layer's uncompressed tar.
        repeat: How many samples are taken of each work.
    """
    os.makedirs(os.path.dirname(driver.home), exist_ok=True)
    samples: Samples = defaultdict(list)
    for turn in range(repeat + 1):
        _once(driver, tar, samples if turn else defaultdict(list))
    return {work: samples[work] for work in WORKS if work in samples}


def _once(driver: GraphDriver, tar: str, samples: Samples) -> None:
    layers = _Layers(driver)

    @contextmanager
    def timed(work: str) -> Iterator[None]:
        # What the work before left to be written must not be paid for by this one.
        sync_filesystem(os.path.dirname(driver.home))
        start = time.perf_counter()
        yield
        samples[work].append(time.perf_counter() - start)

    with timed("apply a layer"):
        base = layers.create(None, tar, read_only=True)
    with timed("read it as a tar"):
        _read(driver, base)
    with timed("empty child"):
        child = layers.create(base)
    with timed("mount and unmount it"):
        driver.unmount(child.layer_id, driver.mount(child.layer_id))
    _change(driver, child)
    with timed("list its changes"):
        list(driver.changes(child, base))
    with timed("copy, same owners"):
        same = layers.copy(base, IdMap())
    with timed("copy, mapped"):
        mapped = layers.copy(base, _new_map())
    made = [child, same, mapped, *_shifted(driver, layers, base, timed)]
    with timed("disk usage"):
        driver.disk_usage(base.layer_id)
    _remove(driver, made)
    with timed("remove and reclaim"):
        _remove(driver, [base])


def _shifted(
    driver: GraphDriver,
    layers: _Layers,
    base: LayerRef,
    timed: Callable[[str], AbstractContextManager[None]],
) -> Iterator[LayerRef]:
    """Make and mount a container by shift, where the driver can."""
    idmap = _new_map()
    if driver.supports_shifting(idmap).possible:
        with timed("child, mapped by shift"):
            layer = layers.create(base)
            path = driver.mount(layer.layer_id, MountOptions(idmap=idmap))
        driver.unmount(layer.layer_id, path)
        yield layer


def _new_map() -> IdMap:
    return IdMap.parse([f"0:{next(_maps) * MAP_SIZE}:{MAP_SIZE}"])


def _read(driver: GraphDriver, layer: LayerRef) -> None:
    with driver.diff(layer, None) as stream:
        while stream.read(READ_SIZE):
            pass


def _change(driver: GraphDriver, layer: LayerRef) -> None:
    """Write some files, as a container would."""
    with driver.mounted(layer.layer_id, read_only=False) as root:
        for number in range(CHANGED_FILES):
            with open(os.path.join(root, f"new-{number}"), "wb") as file:
                file.write(b"content")


def _remove(driver: GraphDriver, layers: Sequence[LayerRef]) -> None:
    for layer in layers:
        driver.remove(layer.layer_id)
    driver.reclaim()
