"""The hooks of the vfs driver.

On disk it is the Go library's: a committed layer is the directory ``<home>/dir/<layer ID>``,
and nothing else is kept (containers/storage, drivers/vfs/driver.go).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from hostspec.directory_layers import (
    DirectoryLayers,
    mount_directory,
    prepare_root,
    unmount_directory,
    unmount_everything_of,
)
from hostspec.errors import InvalidRequest, OperationNotSupported, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    CreateOptions,
    LayerRef,
    MountOptions,
    Shifted,
    ShiftOptions,
)
from hostspec.working_area import WorkingArea

__all__ = ["NAME", "VfsDriver", "open_driver"]

NAME = "vfs"

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def open_driver(
    home: str,
    run_root: str,  # noqa: ARG001 - part of every factory's signature; vfs keeps nothing there
    options: tuple[tuple[str, str], ...],
    read_only_homes: tuple[str, ...],
) -> VfsDriver:
    """Open the driver at ``home``, without touching the disk.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Not used.
        options: ``ignore_chown_errors`` (a Go boolean): keep going where an owner cannot be set.
        read_only_homes: Homes in additional stores.

    Raises:
        InvalidRequest: An option is unknown, or its value is.
    """
    ignore_chown_errors = False
    for name, value in options:
        if name != "ignore_chown_errors":
            raise InvalidRequest(
                f"{NAME}.{name}", "is no option of this driver; it knows ignore_chown_errors"
            )
        if value not in _TRUE | _FALSE:
            raise InvalidRequest(f"{NAME}.{name}={value}", "must be true or false")
        ignore_chown_errors = value in _TRUE
    return VfsDriver(home, read_only_homes, ignore_chown_errors=ignore_chown_errors)


class VfsDriver:
    """Layers as plain directories, on any file system.

    A new layer is copied from its parent: by reflink where the file system can, else inside the
    kernel, else by reading and writing. It is made in the working area, and a rename commits it.
    """

    def __init__(
        self, home: str, read_only_homes: Sequence[str] = (), *, ignore_chown_errors: bool = False
    ) -> None:
        """Take a home; it need not exist.

        Args:
            home: Absolute path.
            read_only_homes: Homes of this driver whose layers may be mounted and copied, never written.
            ignore_chown_errors: Keep unpacking where an owner cannot be set.
        """
        self._home = home
        self._ignore_chown_errors = ignore_chown_errors
        self._area = WorkingArea(home)
        self._layers = DirectoryLayers(
            os.path.join(home, "dir"), self._area, [os.path.join(each, "dir") for each in read_only_homes]
        )

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Say what can be done here; only who may mount can give private and read-only views."""
        mounts = can_mount()
        return Capabilities(
            stages_layers=True, layers_are_whole=True, mounts_privately=mounts, read_only_mounts=mounts
        )

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Copy the parent, or make an empty root, in the working area."""
        _refuse_what_directories_cannot(options)
        source = None if parent is None else self._layers.tree(parent.layer_id)
        with failing(f"create layer {layer_id}"):
            tree = self._layers.new(layer_id)
            with self._layers.abandoned_on_failure(tree):
                os.mkdir(tree, 0o700)
                if source is None:
                    prepare_root(tree, options)
                else:
                    from hostspec.treecopy import copy_tree  # noqa: PLC0415 - only who copies needs it

                    copy_tree(source, tree, progress=options.progress)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it."""
        with failing(f"commit layer {layer_id}"):
            self._layers.commit(layer_id)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Put a layer aside; copies stand on their own, so no other layer is ever in the way."""
        if not self._area.has(layer_id) and not os.path.lexists(self._layers.committed(layer_id)):
            return
        tree = self._layers.own_tree(layer_id)
        with failing(f"remove layer {layer_id}"):
            unmount_everything_of(tree)
            self._layers.put_aside(tree)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's directory, in the read-only homes too."""
        return self._layers.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the directories in ``dir``."""
        with failing("list layers"):
            return self._layers.names()

    @hookimpl
    def reclaim(self) -> int:
        """Delete what was put aside, here and by dead processes."""
        with failing("delete removed layers"):
            return self._area.reclaim()

    @hookimpl
    def cleanup(self) -> None:
        """Give up the working area with what is left in it; nothing else stays between two calls."""
        with failing("give up the working area"):
            self._area.close()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Return the layer's own directory, or bind it to the caller's directory."""
        with failing(f"mount layer {layer_id}"):
            return mount_directory(NAME, self._layers.tree(layer_id), options)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Take a bind down; for the layer's own directory there is nothing to do."""
        with failing(f"unmount {path}"):
            if not self._layers.is_shared_mount(layer_id, path):
                unmount_directory(path)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say what the layers lie on, and how they are copied there."""
        from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 - only who asks needs it
        from hostspec.kernel.reflink import supports_reflinks  # noqa: PLC0415

        if not os.path.isdir(self._home):
            return (("Backing Filesystem", "not known before the first layer"),)
        with failing(f"look at {self._home}"):
            reflinks = supports_reflinks(self._home)
            return (
                ("Backing Filesystem", filesystem_name(self._home)),
                ("Copies By", "reflink" if reflinks else "copying bytes: the file system has no reflinks"),
                ("Private Mounts", "bind" if can_mount() else "none: they need CAP_SYS_ADMIN"),
            )

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer lies."""
        return (("Directory", self._layers.tree(layer_id)),)

    # Content

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack straight into the layer's directory, where a whiteout simply deletes."""
        from hostspec.archive.unpack import unpack  # noqa: PLC0415 - only who fills a layer needs it
        from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415

        tree = self._layers.own_tree(layer_id)
        with failing(f"apply a diff to layer {layer_id}"):
            return unpack(
                stream,
                tree,
                idmap=options.idmap,
                whiteouts=WhiteoutForm.PLAIN,
                squash=options.squash or self._ignore_chown_errors,
                force_mode=options.force_mode,
                progress=options.progress,
            )

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change owners in place: nobody else has these files."""
        from hostspec.ownership import shift_tree  # noqa: PLC0415 - only who maps needs it

        tree = self._layers.own_tree(layer_id)
        with failing(f"change the ID map of layer {layer_id}"):
            return shift_tree(
                tree, old, new, squash=options.squash, threads=options.threads, progress=options.progress
            )


def _refuse_what_directories_cannot(options: CreateOptions) -> None:
    for name, value in options.others:
        raise InvalidRequest(f"{name}={value}", f"the {NAME} driver knows no storage options")
    if options.size is not None or options.inodes is not None:
        raise OperationNotSupported(NAME, "limit a layer's size", "plain directories have no limits")
    if options.mount_label:
        raise OperationNotSupported(NAME, "label a layer's files", "they keep the labels that they have")
