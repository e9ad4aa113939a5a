"""Methods of the store that mount and unmount."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.store.graph_root import GraphRoot

__all__ = ["MountMethods"]


class MountMethods:
    """Mounts: make and count them, and take them down."""

    _root: GraphRoot

    def mount(
        self,
        reference: str,
        *,
        read_only: bool = False,
        mount_label: str = "",
        options: Sequence[str] = (),
    ) -> str:
        """Make a container's, a layer's or an image's files visible, and count one more user.

        Args:
            reference: To a container, a layer or an image; an image is mounted read-only, and unmapped.
            read_only: Refuse writes, where the driver can.
            mount_label: SELinux label; by default the layer's.
            options: Further mount options, beside those that a container was made with.

        Returns:
            The directory, the same for all users.

        Raises:
            Unknown: There is nothing of that ID or name.
            OperationNotSupported: The driver cannot show it as it must be shown.
        """
        from hostspec.store.mounting import mount

        return mount(
            self._root, reference, read_only=read_only, mount_label=mount_label, mount_options=options
        )

    def unmount(self, reference: str, *, force: bool = False) -> bool:
        """Count one user less, and take the mount down after the last one.

        Args:
            reference: To a container, a layer or an image.
            force: Take it down, whoever else uses it.

        Returns:
            Whether it was taken down.

        Raises:
            Unknown: There is nothing of that ID or name.
            InvalidRequest: It is not mounted.
            DriverFailed: It is busy; it is still mounted and counted.
        """
        from hostspec.store.mounting import unmount

        return unmount(self._root, reference, force=force)

    def mounted(self, reference: str) -> int:
        """Return how many users the mount of a container, a layer or an image has.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.mounting import mount_count

        return mount_count(self._root, reference)

    @contextmanager
    def mounting(self, reference: str, *, read_only: bool = False) -> Iterator[str]:
        """Mount for the time of a ``with`` block; see :meth:`mount`."""
        path = self.mount(reference, read_only=read_only)
        try:
            yield path
        finally:
            self.unmount(reference)

    def parent_owners(self, reference: str) -> tuple[list[int], list[int]] | None:
        """Return UIDs and GIDs that own the directories above a mount and are not in its ID map.

        Args:
            reference: To a layer or container.

        Returns:
            Both ascending; none where there is no map, and ``None`` where it is not mounted.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.directories import parent_owners

        return parent_owners(self._root, reference)

    def shutdown(self, *, force: bool = False) -> Sequence[str]:
        """Take down what is mounted, as before switching the machine off.

        Args:
            force: Also what is in use.

        Returns:
            IDs of the layers that are still mounted.

        Raises:
            InUse: Without ``force``: layers are in use.
        """
        from hostspec.store.mounting import take_all_down

        return take_all_down(self._root, force=force)
