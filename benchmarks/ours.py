"""Our side: the store through its Python API, and through the command ``hostspec``."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping, Sequence

from benchmarks.command import CommandSide
from benchmarks.side import IN_PROCESS, MAP_SIZE, OURS, STRATEGIES
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import unmount_all
from hostspec.store import open_store
from hostspec.store.configuration.policy import Strategy
from hostspec.values import CreateOptions, LayerRef

__all__ = ["InProcess", "our_command", "our_side"]

CHUNK_SIZE = 1 << 17
"""Bytes; buffers of a megabyte cost page faults, more than half as much again as the whole diff."""

EXAMPLE_MAP = IdMap.parse([f"0:{MAP_SIZE}:{MAP_SIZE}"])


def our_command() -> str:
    """Return the path of the command that was installed with this interpreter."""
    return os.path.join(sysconfig.get_path("scripts"), "hostspec")


def our_side(directory: str, run_root: str, driver: str, options: Sequence[str]) -> CommandSide:
    """Return a store that the command drives; arguments as for :class:`InProcess`."""
    return CommandSide(
        OURS,
        (our_command(),),
        (os.path.join(directory, "graph"), run_root),
        driver,
        options=options,
        environment={"PATH": os.environ.get("PATH", os.defpath)},
    )


class InProcess:
    """A store kept open in this process; implements :class:`benchmarks.side.Side`.

    A sample holds what a long-running program waits for: the call with its durable writes and, where
    something is deleted, the freeing of its space.
    """

    def __init__(self, directory: str, run_root: str, driver: str, options: Sequence[str]) -> None:
        """Open the store.

        Args:
            directory: Directory for its graph root, which need not exist.
            run_root: Its run root, which need not exist.
            driver: Name of the driver.
            options: Storage options, ``KEY=VALUE``.
        """
        self._store = open_store(
            root=os.path.join(directory, "graph"), run_root=run_root, driver=driver, options=options
        )

    @property
    def column(self) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return IN_PROCESS

    @property
    def peak_bytes(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        return

    def strategies(self) -> Mapping[Strategy, str]:
        """Return every strategy, each with why it is not possible here, or ``""``."""
        ways = {way.name: way for way in self._store.idmap_strategies(EXAMPLE_MAP)}
        return {name: "" if ways[name].possible else ways[name].reason for name in STRATEGIES}

    def copy_in_driver(self, layer: str, *, native: bool) -> str:
        """Have the driver alone make a copy with the same map, which no record names.

        Args:
            layer: ID of the layer to copy.
            native: By the driver's own way; otherwise by diff and apply.

        Returns:
            The copy's ID, for :meth:`remove_from_driver`.
        """
        copy = os.urandom(32).hex()
        options = CreateOptions(read_only=True)
        self._store.driver.create_from_template(copy, LayerRef(layer), None, options, native=native)
        return copy

    def remove_from_driver(self, layer: str) -> None:
        """Remove a layer that no record names."""
        self._store.driver.remove(layer)
        self._store.driver.reclaim()

    def import_layer(self, tar: str) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._store.import_layer(tar).id

    def diff(self, layer: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        with self._store.diff(layer) as stream:
            while stream.read(CHUNK_SIZE):
                pass

    def delete_layer(self, layer: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.delete_layer(layer)

    def list_layers(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.layers()

    def list_images(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.images()

    def create_layer(self) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._store.create_layer().id

    def create_image(self, layer: str) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._store.create_image(layer).id

    def top_layers(self, image: str) -> int:
        """See :class:`~benchmarks.side.Side`."""
        return len(self._store.image(image).top_layers)

    def delete_image(self, image: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.delete_image(image)

    def create_container(
        self, image: str, first_host_id: int | None = None, strategy: Strategy = "auto"
    ) -> str:
        """See :class:`~benchmarks.side.Side`."""
        idmap = IdMap() if first_host_id is None else IdMap.parse([f"0:{first_host_id}:{MAP_SIZE}"])
        return self._store.create_container(image, idmap=idmap, strategy=strategy).id

    def delete_container(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.delete_container(container)

    def mount(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.mount(container)

    def unmount(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.unmount(container)

    def close(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._store.close()
        unmount_all(self._store.root)
