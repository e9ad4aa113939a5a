"""The homes of one driver object: how it finds layers in them, makes and removes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from hostspec.errors import Duplicate, InvalidRequest, OperationNotSupported, StoreReadOnly, Unknown
from hostspec.working_area import WorkingArea
from hostspec_overlay.home_mount import despite_mounts
from hostspec_overlay.layout import (
    LINKS,
    MAX_DEPTH,
    LayerDirectory,
    Lower,
    is_layer_id,
    lower_chain,
    make_layer,
    make_link,
)
from hostspec_overlay.options import DRIVER
from hostspec_overlay.renaming import rename_across_projects

__all__ = ["Homes"]


class Homes:
    """The driver's home, the working area in it, and the homes of additional stores.

    The working area is a home too: it has short names of its own, so that one layer being made
    can stand on another.

    Attributes:
        home: Absolute path of the driver's home.
        area: The working area of this process.
    """

    def __init__(self, home: str, read_only: Sequence[str]) -> None:
        """Take homes, without touching the disk.

        Args:
            home: Absolute path of the driver's home.
            read_only: Absolute paths of those in additional stores.
        """
        self.home = home
        self.area = WorkingArea(home)
        self._read_only = tuple(read_only)

    def make(
        self,
        layer_id: str,
        below: LayerDirectory | None,
        *,
        owner: tuple[int, int],
        mask: int | None = None,
        limit: Callable[[str], None] | None = None,
    ) -> None:
        """Make an empty layer in the working area; after a failure nothing is left.

        Args:
            layer_id: Its ID.
            below: The layer on which it is to stand, or ``None``.
            owner: Host UID and GID of its directory, and of its root where nothing is below.
            mask: Permission bits of its root on disk where nothing is below; ``None`` for the usual ones.
            limit: Given the path of its directory while that is empty, limits what it may occupy.

        Raises:
            InvalidRequest: The ID cannot be the name of a layer.
            Duplicate: There is such a layer, staged or committed.
            OperationNotSupported: The chain would be longer than the kernel mounts.
            OSError: The operating system refused.
        """
        if not is_layer_id(layer_id):
            raise InvalidRequest(
                f"layer ID {layer_id!r}", "must be a file name that the layout does not use itself"
            )
        if self.staged(layer_id) or os.path.lexists(f"{self.home}/{layer_id}"):
            raise Duplicate("ID", layer_id)
        if below is not None and len(below.lower_entries()) + 1 >= MAX_DEPTH:
            raise OperationNotSupported(
                DRIVER, f"create layer {layer_id}", f"the kernel mounts at most {MAX_DEPTH} layers at once"
            )
        layer = self._new_layer(layer_id)
        try:
            make_layer(layer, below, owner=owner, mask=mask, limit=limit)
        except BaseException:
            self.put_aside(layer)
            raise

    def _new_layer(self, layer_id: str) -> LayerDirectory:
        """Return where a layer is to be made; makes the home and the working area."""
        os.makedirs(f"{self.home}/{LINKS}", 0o755, exist_ok=True)
        staging = os.path.dirname(self.area.staged(layer_id))
        os.makedirs(f"{staging}/{LINKS}", 0o700, exist_ok=True)
        return LayerDirectory(staging, layer_id)

    def commit(self, layer_id: str) -> None:
        """Rename a layer from the working area into the home; after a failure it is still staged.

        Raises:
            Unknown: This process is making no such layer.
            Duplicate: There is such a layer in the home.
            OSError: The operating system refused.
        """
        staged = self.staged(layer_id)
        if staged is None:
            raise Unknown("layer", layer_id)
        layer = LayerDirectory(self.home, layer_id)
        link = staged.read_link()
        try:
            rename_across_projects(
                staged.path,
                self.home,
                lambda: despite_mounts(lambda: os.rename(staged.path, layer.path)),
            )
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                raise Duplicate("ID", layer_id) from error
            raise
        try:
            make_link(layer, link)
        except BaseException:
            os.rename(layer.path, staged.path)
            raise
        os.unlink(f"{staged.home}/{LINKS}/{link}")

    def put_aside(self, layer: LayerDirectory) -> None:
        """Unmount a layer and take it out of sight, to be deleted by the working area.

        Raises:
            OSError: The operating system refused.
        """
        from hostspec.kernel.mounts import unmount_all  # noqa: PLC0415 - only where something is removed

        unmount_all(os.path.realpath(layer.path))
        with suppress(FileNotFoundError):
            # The name first: one that leads nowhere disturbs other clients, a layer without one does not.
            os.unlink(f"{layer.home}/{layer.entry()}")
        with suppress(FileNotFoundError):
            rename_across_projects(
                layer.path, self.area.path, lambda: despite_mounts(lambda: self.area.put_aside(layer.path))
            )

    def staged(self, layer_id: str) -> LayerDirectory | None:
        """Return a layer that this process is making."""
        if not is_layer_id(layer_id) or not self.area.has(layer_id):
            return None
        return LayerDirectory(os.path.dirname(self.area.staged(layer_id)), layer_id)

    def committed(self, layer_id: str) -> LayerDirectory | None:
        """Return a layer that everybody sees, in this store or an additional one."""
        if not is_layer_id(layer_id):
            return None
        for home in (self.home, *self._read_only):
            if os.path.isdir(f"{home}/{layer_id}"):
                return LayerDirectory(home, layer_id, writable=home == self.home)
        return None

    def find(self, layer_id: str) -> LayerDirectory:
        """Return a layer, staged or committed.

        Raises:
            Unknown: There is no such layer.
        """
        layer = self.staged(layer_id) or self.committed(layer_id)
        if layer is None:
            raise Unknown("layer", layer_id)
        return layer

    def find_writable(self, layer_id: str) -> LayerDirectory:
        """Return a layer that may be changed.

        Raises:
            Unknown: There is no such layer.
            StoreReadOnly: It lies in an additional store.
        """
        layer = self.find(layer_id)
        if not layer.writable:
            raise StoreReadOnly(layer.home, f"layer {layer_id} lies in an additional store")
        return layer

    def below(self, layer: LayerDirectory) -> list[Lower]:
        """Return every directory below a layer's ``diff``, uppermost first.

        Raises:
            StoreCorrupt: A layer below is missing.
        """
        homes = [self.home]
        if self.area.has(LINKS):
            homes.append(os.path.dirname(self.area.staged(LINKS)))
        return lower_chain(layer, [*homes, *self._read_only])

    def directories_below(self, layer: LayerDirectory) -> list[str]:
        """Return the real paths of the directories below a layer's ``diff``, uppermost first.

        Raises:
            StoreCorrupt: A layer below is missing.
        """
        return [os.path.realpath(lower.path) for lower in self.below(layer)]

    def new_place(self, name: str) -> str:
        """Return a path in the working area at which nothing is."""
        return f"{self.area.path}/{name}-{os.urandom(4).hex()}"

    def scratch_place(self) -> str:
        """Return a path on the home's file system at which nothing is, without making the home."""
        if os.path.isdir(f"{self.home}/{LINKS}"):
            return self.new_place("probe")
        above = self.home
        while not os.path.isdir(above):
            above = os.path.dirname(above)
        return f"{above}/.hostspec-probe-{os.urandom(8).hex()}"
