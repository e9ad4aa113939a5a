"""The hooks that are the same for every driver whose layers are directories."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

from hostspec.directory_layers.layers import DirectoryLayers, nearest_existing
from hostspec.directory_layers.mounting import mount_privately, refuse_unknown_options, unmount_everything_of
from hostspec.directory_layers.options import NO_OPTIONS, DirectoryOptions
from hostspec.directory_layers.shifting import ShiftedMounts
from hostspec.errors import StoreReadOnly, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount
from hostspec.kernel.deletion import delete_tree
from hostspec.values import ApplyOptions, Capabilities, MountOptions, Shifted, Shifting, ShiftOptions
from hostspec.working_area import WorkingArea

__all__ = ["DirectoryDriver"]

_ANY_MAP = IdMap.parse(["0:100000:65536"])


class DirectoryDriver:
    """A driver of whole trees, each in a directory of its own, but for the making of one.

    A driver derives from it, adds ``create``, and replaces what it does better. A new layer is made at
    ``self.layers.new(layer_id)``, in the working area; a rename commits it. Layers stand on their
    own, so any may be removed at any time.

    Attributes:
        name: The driver's name, for messages.
        home: Absolute path of its home.
        area: Where layers are made, and go before they are deleted.
        layers: Where layers lie.
    """

    def __init__(
        self,
        name: str,
        home: str,
        run_root: str,
        read_only_homes: Sequence[str] = (),
        *,
        directory: str,
        delete: Callable[[str], int | None] = delete_tree,
        options: DirectoryOptions = NO_OPTIONS,
    ) -> None:
        """Take a home; nothing is made on disk before the first layer.

        Args:
            name: The driver's name.
            home: Absolute path.
            run_root: Absolute path of the directory for what need not survive a reboot.
            read_only_homes: Homes of this driver whose layers may be mounted and copied, never written.
            directory: Name of the directory for committed layers, in the home.
            delete: How to delete a layer, as :class:`~hostspec.working_area.WorkingArea` takes it.
            options: What the user chose.
        """
        self.name = name
        self.home = home
        self.area = WorkingArea(home, delete=delete)
        self.layers = DirectoryLayers(
            os.path.join(home, directory),
            self.area,
            [os.path.join(each, directory) for each in read_only_homes],
        )
        self._squash = options.squash
        self._shifted = ShiftedMounts(name, run_root, switched_on=options.shifting)

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Say what can be done here; only who may mount can give private and read-only views."""
        mounts = can_mount()
        return Capabilities(
            stages_layers=True, layers_are_whole=True, mounts_privately=mounts, read_only_mounts=mounts
        )

    # The life of a layer

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it."""
        with failing(f"commit layer {layer_id}"):
            self.layers.commit(layer_id)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Take a layer's mounts down and put it aside."""
        is_there = self.area.has(layer_id) or os.path.lexists(self.layers.committed(layer_id))
        if not is_there and self.layers.exists(layer_id):
            place = os.path.dirname(self.layers.tree(layer_id))
            raise StoreReadOnly(place, f"layer {layer_id} lies in an additional store")
        tree = self.layers.own_tree(layer_id) if is_there else None
        with failing(f"remove layer {layer_id}"):
            if tree is not None:
                unmount_everything_of(tree)
            self._shifted.forget(self._shifted_place(layer_id))
            if tree is not None:
                self.prepare_removal(layer_id, tree)
                self.layers.put_aside(tree)

    def prepare_removal(self, layer_id: str, tree: str) -> None:
        """Do what a driver has to do before a layer's directory is put aside; nothing here.

        Raises:
            OSError: The layer stays as it is.
        """

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's directory, in the read-only homes too."""
        return self.layers.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the directories."""
        with failing("list layers"):
            return self.layers.names()

    @hookimpl
    def reclaim(self) -> int:
        """Delete what was put aside, here and by dead processes, and the mounts of layers that are gone."""
        with failing("delete removed layers"):
            self._shifted.take_down_deleted()
            return self.area.reclaim()

    @hookimpl
    def cleanup(self) -> None:
        """Give up the working area with what is left in it, and shared mounts that nobody uses."""
        with failing("give up the home"):
            self._shifted.take_down_unused(self._tree_if_any)
            self.area.close()

    @hookimpl
    def close(self) -> None:
        """Give up the working area."""
        with failing("give up the working area"):
            self.area.close()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Return the layer's own directory, or bind it to the caller's; a shifted one is always a bind."""
        refuse_unknown_options(self.name, options)
        tree = self.layers.tree(layer_id)
        with failing(f"mount layer {layer_id}"):
            if options.target is not None:
                mount_privately(self.name, tree, options.target, options, self._shifted)
                return options.target
            place = self._shifted_place(layer_id)
            if options.idmap:
                self._shifted.mount_shared(tree, place, options.idmap)
            # There is one shared mount: once a layer is shifted, that is it, also for who does not say so.
            return place if self._shifted.is_shown(tree, place) else tree

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Take a bind down; for the layer's own directory there is nothing to do."""
        with failing(f"unmount {path}"):
            if not self.layers.is_shared_mount(layer_id, path):
                self._shifted.unmount(path)

    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Make an idmapped mount of the home that nobody sees."""
        with failing(f"try to mount {self.home} under an ID map"):
            return self._shifted.supports(nearest_existing(self.home), idmap)

    def _tree_if_any(self, layer_id: str) -> str | None:
        return self.layers.tree(layer_id) if self.layers.exists(layer_id) else None

    def _shifted_place(self, layer_id: str) -> str:
        """Return where the shared mount of a shifted layer is, or would be.

        That of a layer which is being made lies in the working area, and goes with it.
        """
        if self.area.has(layer_id):
            return os.path.join(self.area.path, f"shifted-{layer_id}")
        return self._shifted.place(layer_id)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say what the layers lie on, and how they can be mounted there."""
        from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 - loads ctypes

        with failing(f"look at {self.home}"):
            shifting = self.supports_shifting(_ANY_MAP)
            return (
                ("Backing Filesystem", filesystem_name(nearest_existing(self.home))),
                ("Private Mounts", "bind" if can_mount() else "none: they need CAP_SYS_ADMIN"),
                ("Idmapped Mounts", f"{'yes' if shifting.possible else 'no'} ({shifting.reason})"),
            )

    # Content

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack straight into the layer's directory, where a whiteout simply deletes."""
        from hostspec.archive.unpack import unpack  # noqa: PLC0415 - only who fills a layer needs it
        from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415

        tree = self.layers.own_tree(layer_id)
        with failing(f"apply a diff to layer {layer_id}"):
            return unpack(
                stream,
                tree,
                idmap=options.idmap,
                whiteouts=WhiteoutForm.PLAIN,
                squash=options.squash or self._squash,
                force_mode=options.force_mode,
                progress=options.progress,
            )

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change owners in place: nobody else has these files."""
        from hostspec.ownership import shift_tree  # noqa: PLC0415 - only who maps needs it

        tree = self.layers.own_tree(layer_id)
        with failing(f"change the ID map of layer {layer_id}"):
            return shift_tree(
                tree, old, new, squash=options.squash, threads=options.threads, progress=options.progress
            )
