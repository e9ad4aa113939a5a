"""Methods of the store that act on containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.idmap import IdMap
    from hostspec.store.configuration.policy import Strategy
    from hostspec.store.format.records import Container
    from hostspec.store.graph_root import GraphRoot
    from hostspec.values import ProgressCallback

__all__ = ["ContainerMethods"]


class ContainerMethods:
    """Containers: find, make and remove them."""

    _root: GraphRoot

    def containers(self) -> Sequence[Container]:
        """Return all containers, in the order in which they were made."""
        return tuple(self._root.containers.read())

    def container(self, reference: str) -> Container:
        """Return one container.

        Raises:
            Unknown: There is none.
        """
        return self._root.containers.read().get(reference)

    def has_container(self, reference: str) -> bool:
        """Tell whether there is such a container."""
        return self._root.containers.read().find(reference) is not None

    def create_container(  # noqa: PLR0913 - keywords that few callers need
        self,
        image: str | None = None,
        *,
        container_id: str | None = None,
        names: Sequence[str] = (),
        idmap: IdMap | None = None,
        strategy: Strategy | None = None,
        metadata: str = "",
        volatile: bool = False,
        mount_label: str = "",
        mount_options: Sequence[str] = (),
        storage_options: Sequence[tuple[str, str]] = (),
        squash: bool = False,
        threads: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Container:
        """Make a container and its writable layer.

        Args:
            image: Reference to its image, or ``None`` for one without files.
            container_id: Its ID; random by default.
            names: Its names.
            idmap: The map under which its processes will run; none by default.
            strategy: How its files come to be seen under that map: ``"shift"`` (when it is mounted),
                ``"template"`` or ``"copy"`` (on a mapped copy of the image's top layer, made by the driver
                or by diff and apply), or ``"auto"`` for the first that works. A copy that is there
                already is used again, however it was made. By default as the store's options say.
            metadata: Any text.
            volatile: Its content need not survive a crash of the machine.
            mount_label: SELinux label.
            mount_options: Options with which it is to be mounted.
            storage_options: Limits, ``size`` (``"10g"``) and ``inodes``, and the driver's own options for
                its layer.
            squash: Give files whose IDs are outside the map the nearest that is inside.
            threads: Threads for an ownership pass.
            progress: Told how far a mapped copy has come, in files.

        Returns:
            Its record.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            Duplicate: The ID or a name is taken.
            OperationNotSupported: The driver cannot shift, and nothing else was allowed.
            SlowWayRefused: It takes a slow copy, which the store's options forbid; see :meth:`warm`.
            IdNotMapped: A file's owner is outside the map.
        """
        from hostspec.store.containers import create_container
        from hostspec.store.format.records import VOLATILE
        from hostspec.store.layer_options import with_storage_options
        from hostspec.values import CreateOptions

        flags: dict[str, object] = {VOLATILE: True} if volatile else {}
        if mount_options:
            flags["MountOpts"] = list(mount_options)
        return create_container(
            self._root,
            image,
            container_id=container_id,
            names=names,
            idmap=idmap,
            strategy=strategy,
            metadata=metadata,
            flags=flags,
            options=with_storage_options(
                CreateOptions(mount_label=mount_label, squash=squash, threads=threads, progress=progress),
                storage_options,
            ),
        )

    def container_size(self, reference: str) -> int:
        """Return the bytes in a container's own layer and in its big data.

        Raises:
            Unknown: There is no such container.
        """
        from hostspec.store.content import container_size

        return container_size(self._root, reference)

    def delete_container(self, reference: str) -> None:
        """Remove a container and its layer, unmounting it first.

        Raises:
            Unknown: There is no such container.
            LayerInUse: An image or another layer stands on its layer.
            DriverFailed: Its mount is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_container

        delete_container(self._root, reference)
        if self._root.policy.remove_mapped_unused_for is not None:
            from hostspec.store.copies.unused import tidy_up

            tidy_up(self._root)
