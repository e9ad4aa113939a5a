"""What is measured on both sides, as one interface."""

from __future__ import annotations

from typing import Protocol

from hostspec.store.configuration.policy import Strategy

__all__ = ["IN_PROCESS", "MAP_SIZE", "OURS", "PEER", "STRATEGIES", "Side"]

IN_PROCESS = "ours in process"
OURS = "ours whole"
PEER = "peer whole"

STRATEGIES: tuple[Strategy, ...] = ("shift", "template", "copy")
"""Ways to give a container an ID map, the cheapest first."""

MAP_SIZE = 65536
"""IDs in every map that is measured."""


class Side(Protocol):
    """One store, driven by the Python API, by ``hostspec`` or by the peer's command.

    Every method is one call, or one process: what a sample of it holds is in the implementation.
    """

    @property
    def column(self) -> str:
        """The column of the report that its samples belong to."""

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the last command had, in bytes, or ``None`` where there was none."""

    def import_layer(self, tar: str) -> str:
        """Make a layer of a tar, and return its ID."""

    def diff(self, layer: str) -> None:
        """Read the layer's whole uncompressed tar."""

    def delete_layer(self, layer: str) -> None:
        """Delete a layer."""

    def list_layers(self) -> None:
        """List the layers."""

    def list_images(self) -> None:
        """List the images."""

    def create_layer(self) -> str:
        """Make an empty layer without a parent, and return its ID."""

    def create_image(self, layer: str) -> str:
        """Make an image of a layer, and return its ID."""

    def top_layers(self, image: str) -> int:
        """Return how many top layers an image has: one, and its mapped copies."""

    def delete_image(self, image: str) -> None:
        """Delete an image and what only it needs."""

    def create_container(
        self, image: str, first_host_id: int | None = None, strategy: Strategy = "auto"
    ) -> str:
        """Make a container, and return its ID.

        Args:
            image: ID of its image.
            first_host_id: Host ID of container ID 0, for a map of ``MAP_SIZE`` IDs; ``None`` for no map.
            strategy: How the map is to be made; the peer knows only ``"auto"``.
        """

    def delete_container(self, container: str) -> None:
        """Delete a container."""

    def mount(self, container: str) -> None:
        """Mount a container."""

    def unmount(self, container: str) -> None:
        """Unmount a container."""

    def close(self) -> None:
        """Unmount and forget everything."""
