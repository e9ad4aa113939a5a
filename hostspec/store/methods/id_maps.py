"""Methods of the store about ID maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.idmap import IdMap
    from hostspec.store.configuration.keys import Configuration
    from hostspec.store.configuration.policy import Strategy
    from hostspec.store.copies.footing import Warmth
    from hostspec.store.copies.listing import MappedCopy
    from hostspec.store.copies.slow_ways import CopyCost
    from hostspec.store.copies.strategies import Choice, Way
    from hostspec.store.graph_root import GraphRoot
    from hostspec.values import ProgressCallback

__all__ = ["IdMapMethods"]


class IdMapMethods:
    """How containers get their ID maps, and the mapped copies that some need."""

    _root: GraphRoot
    configuration: Configuration | None

    def idmap_strategies(self, idmap: IdMap) -> Sequence[Way]:
        """Return the ways to give a container this map, cheapest first, and why each is possible or not."""
        from hostspec.store.copies.strategies import ways_for

        return ways_for(self._root, idmap)

    def explain_idmap(
        self, image: str | None, idmap: IdMap | None = None, *, strategy: Strategy | None = None
    ) -> Choice:
        """Say which way a container would get its map now, why, and why not a better one; make nothing.

        Args:
            image: Reference to its image, or ``None``.
            idmap: Its map; as for :meth:`create_container`.
            strategy: As there.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            OperationNotSupported: Shifting was asked for, and is not possible.
        """
        from hostspec.store.copies.strategies import explain

        return explain(self._root, image, idmap, strategy)

    @contextmanager
    def automatic_idmap(self, image: str | None = None, *, size: int | None = None) -> Iterator[IdMap]:
        """Choose an ID map for a container, for a ``with`` block in which the container is made.

        The IDs are of those that ``/etc/subuid`` and ``/etc/subgid`` grant to the user whom the
        configuration names (``containers`` by default), and no container has any of them. Within the
        block nobody else chooses any, podman included.

        Args:
            image: Reference to the container's image.
            size: How many IDs; by default as many as the image's files and accounts need.

        Raises:
            Unknown: There is no such image.
            InvalidRequest: The image needs more IDs than a map may have, or there are not so many free ones.
            InvalidIdMap: The user has no IDs.
        """
        from hostspec.store.user_namespaces import automatic_map

        found = self._root.images.read().get(image) if image else None
        with automatic_map(self._root, found, configuration=self.configuration, size=size) as idmap:
            yield idmap

    def mapped_copies(self) -> Sequence[MappedCopy]:
        """Return the mapped copies of images' top layers: whose, which map, how large, when last used."""
        from hostspec.store.copies.listing import list_copies

        return list_copies(self._root)

    def warm(
        self,
        image: str,
        idmap: IdMap | None = None,
        *,
        strategy: Strategy | None = None,
        squash: bool = False,
        threads: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Warmth:
        """Make the mapped copy for containers of an image ahead of the first one, where they need one.

        It is made however slow that is. Repeating it is harmless: a copy that is there counts as just used.

        Args:
            image: Reference to the image.
            idmap: The map of the containers; as for :meth:`create_container`.
            strategy: As there, and the further ones, too.
            squash: Give files whose IDs are outside the map the nearest that is inside.
            threads: Threads for an ownership pass.
            progress: Told how far the copy has come, in files.

        Returns:
            The copy, or why none is needed.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            OperationNotSupported: Shifting was asked for, and is not possible.
            IdNotMapped: A file's owner is outside the map.
        """
        from hostspec.store.copies.footing import warm
        from hostspec.values import CreateOptions

        options = CreateOptions(squash=squash, threads=threads, progress=progress)
        return warm(self._root, image, idmap, strategy, options)

    def copy_cost(self, image: str) -> CopyCost:
        """Return how many files and bytes a mapped copy of an image's top layer has to copy at most.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
        """
        from hostspec.store.copies.slow_ways import cost_of_image

        return cost_of_image(self._root, image)

    def remove_unused_copies(self, unused_for: float, *, dry_run: bool = False) -> Sequence[str]:
        """Remove mapped copies that no container has stood on for a time; images stay as they are otherwise.

        Args:
            unused_for: Seconds since the last container was made on one or deleted.
            dry_run: Only say which would go.

        Returns:
            IDs of the removed layers, in the order in which they went.
        """
        from hostspec.store.copies.unused import remove_unused_copies

        return remove_unused_copies(self._root, unused_for, dry_run=dry_run)
