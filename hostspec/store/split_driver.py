"""One driver with two homes: images' layers go to the image store, containers' layers to the graph root.

Each home is opened as a driver of its own, and sees the other as one whose layers may be parents and
templates. This object implements the contract by asking the one that holds the layer, so that nobody
else has to know of two homes; it knows nothing of how a driver keeps layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from hostspec.driver import GraphDriver
from hostspec.hookspecs import HOOKS, REQUIRED_HOOKS, hookimpl
from hostspec.idmap import IdMap
from hostspec.observers import Observer
from hostspec.plugins import open_driver
from hostspec.store.format.layout import Layout
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    Change,
    CreateOptions,
    DedupOptions,
    DiskUsage,
    LayerRef,
    MountOptions,
    Shifted,
    Shifting,
    ShiftOptions,
)

__all__ = ["SplitDriver", "open_split_driver"]


def open_split_driver(
    layout: Layout,
    options: Sequence[tuple[str, str]],
    *,
    read_only_homes: Sequence[str] = (),
    observers: Sequence[Observer] = (),
) -> GraphDriver:
    """Open a store's driver at both of its homes.

    Args:
        layout: Where the store lies; it has an image store.
        options: The driver's options.
        read_only_homes: Homes in additional stores.
        observers: Told of every operation, once.

    Raises:
        DriverUnavailable: It cannot be used at one of the homes.
        InvalidRequest: It does not know an option.
    """
    containers, images = (
        open_driver(
            layout.driver,
            home=home,
            run_root=layout.driver_run_root,
            options=options,
            read_only_homes=(other, *read_only_homes),
        )
        for home, other in ((layout.home, layout.image_home), (layout.image_home, layout.home))
    )
    return GraphDriver(
        layout.driver,
        SplitDriver(containers, images),
        home=layout.home,
        run_root=layout.driver_run_root,
        # What the driver leaves to the fallbacks, this one does as well, so that it shows.
        masked=frozenset(hook for hook in HOOKS - REQUIRED_HOOKS if not containers.implements(hook)),
        observers=observers,
    )


class SplitDriver:
    """Two drivers of one kind behind one contract."""

    def __init__(self, containers: GraphDriver, images: GraphDriver) -> None:
        """Take the driver at the graph root's home, and the one at the image store's."""
        self._containers = containers
        self._images = images
        self._being_made: dict[str, GraphDriver] = {}

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Both homes have the same driver; what one of them cannot do is not promised."""
        here, there = self._containers.capabilities, self._images.capabilities
        return here._replace(
            mounts_privately=here.mounts_privately and there.mounts_privately,
            read_only_mounts=here.read_only_mounts and there.read_only_mounts,
            limits_size=here.limits_size and there.limits_size,
            limits_inodes=here.limits_inodes and there.limits_inodes,
        )

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make it in the home for its kind."""
        maker = self._maker(options)
        maker.create(layer_id, parent, options)
        self._being_made[layer_id] = maker

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Make it in the home for its kind; the template may lie in the other."""
        maker = self._maker(options)
        carried = maker.create_from_template(layer_id, template, parent, options)
        self._being_made[layer_id] = maker
        return carried

    @hookimpl
    def seal(self, layer_id: str) -> None:
        """Seal it where it was made."""
        self._holder(layer_id).seal(layer_id)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Commit it where it was made."""
        self._holder(layer_id).commit(layer_id)
        self._being_made.pop(layer_id, None)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Remove it where it is."""
        self._holder(layer_id).remove(layer_id)
        self._being_made.pop(layer_id, None)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Each home sees the other's layers."""
        return self._containers.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List both homes."""
        return tuple(dict.fromkeys((*self._containers.list_layers(), *self._images.list_layers())))

    @hookimpl
    def reclaim(self) -> int:
        """Clear up both."""
        return self._containers.reclaim() + self._images.reclaim()

    @hookimpl
    def cleanup(self) -> None:
        """Give up both."""
        self._containers.cleanup()
        self._images.cleanup()

    @hookimpl
    def close(self) -> None:
        """Close both."""
        self._containers.close()
        self._images.close()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount it where it is."""
        return self._holder(layer_id).mount(layer_id, options)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Unmount it where it is."""
        self._holder(layer_id).unmount(layer_id, path)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say of each home what it can do, and where it is, once they differ."""
        here, there = self._containers.status(), self._images.status()
        images = [(f"Image Store {name}", value) for name, value in there if (name, value) not in here]
        return (*here, ("Image Store Home", self._images.home), *images)

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Ask where it is."""
        return self._holder(layer_id).metadata(layer_id)

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Ask where it is."""
        return self._holder(layer_id).disk_usage(layer_id)

    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Containers are what is shifted."""
        return self._containers.supports_shifting(idmap)

    # Content

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterator[Change]:
        """Ask where the layer is."""
        return self._holder(layer.layer_id).changes(layer, parent)

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        """Ask where the layer is."""
        return self._holder(layer.layer_id).diff(layer, parent)

    @hookimpl
    def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int:
        """Ask where the layer is."""
        return self._holder(layer.layer_id).diff_size(layer, parent)

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack it where it is."""
        return self._holder(layer_id).apply_diff(layer_id, stream, options)

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change owners where it is."""
        return self._holder(layer_id).update_idmap(layer_id, old, new, options)

    @hookimpl
    def dedup(self, layer_ids: Sequence[str], options: DedupOptions) -> int:
        """Let each home share among its own; blocks of two file systems cannot be shared."""
        in_images = set(self._images.list_layers())
        return self._containers.dedup(
            [each for each in layer_ids if each not in in_images], options
        ) + self._images.dedup([each for each in layer_ids if each in in_images], options)

    def _maker(self, options: CreateOptions) -> GraphDriver:
        return self._images if options.read_only else self._containers

    def _holder(self, layer_id: str) -> GraphDriver:
        """Return the driver in whose home a layer lies; for any that neither has, the containers'."""
        maker = self._being_made.get(layer_id)
        if maker is not None:
            return maker
        return self._images if layer_id in self._images.list_layers() else self._containers
