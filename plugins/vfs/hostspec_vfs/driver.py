"""The hooks of the vfs driver.

On disk it is the Go library's: a committed layer is the directory ``<home>/dir/<layer ID>``,
and nothing else is kept (containers/storage, drivers/vfs/driver.go).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hostspec.directory_layers import (
    NO_OPTIONS,
    DirectoryDriver,
    DirectoryOptions,
    prepare_root,
    refuse_option,
    split_options,
)
from hostspec.errors import InvalidRequest, OperationNotSupported, failing
from hostspec.hookspecs import hookimpl
from hostspec.values import CreateOptions, LayerRef

__all__ = ["NAME", "VfsDriver", "open_driver"]

NAME = "vfs"


def open_driver(
    home: str,
    run_root: str,
    options: tuple[tuple[str, str], ...],
    read_only_homes: tuple[str, ...],
) -> VfsDriver:
    """Open the driver at ``home``, without touching the disk.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Directory for the mounts of shifted layers.
        options: Those of :mod:`hostspec.directory_layers.options`.
        read_only_homes: Homes in additional stores.

    Raises:
        InvalidRequest: An option is unknown, or its value is.
    """
    chosen, others = split_options(NAME, options)
    for name, _ in others:
        raise refuse_option(NAME, name)
    return VfsDriver(home, run_root, read_only_homes, options=chosen)


class VfsDriver(DirectoryDriver):
    """Layers as plain directories, on any file system.

    A new layer is copied from its parent: by reflink where the file system can, else inside the
    kernel, else by reading and writing.
    """

    def __init__(
        self,
        home: str,
        run_root: str,
        read_only_homes: Sequence[str] = (),
        *,
        options: DirectoryOptions = NO_OPTIONS,
    ) -> None:
        """Take a home; it need not exist.

        Args:
            home: Absolute path.
            run_root: Absolute path.
            read_only_homes: Homes of this driver whose layers may be mounted and copied, never written.
            options: What the user chose.
        """
        super().__init__(NAME, home, run_root, read_only_homes, directory="dir", options=options)

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Copy the parent, or make an empty root, in the working area."""
        _refuse_what_directories_cannot(options)
        source = None if parent is None else self.layers.tree(parent.layer_id)
        with failing(f"create layer {layer_id}"):
            tree = self.layers.new(layer_id)
            with self.layers.abandoned_on_failure(tree):
                os.mkdir(tree, 0o700)
                if source is None:
                    prepare_root(tree, options)
                else:
                    from hostspec.treecopy import copy_tree  # noqa: PLC0415 - only who copies needs it

                    copy_tree(source, tree, progress=options.progress)

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say, too, how layers are copied here, which is tried at the home once there is one."""
        if not os.path.isdir(self.home):
            return super().status()
        from hostspec.kernel.reflink import supports_reflinks  # noqa: PLC0415 - only who asks needs it

        try:
            reflinks = supports_reflinks(self.home)
        except OSError as error:
            copies = f"not known: {error.strerror}"
        else:
            copies = "reflink" if reflinks else "copying bytes: the file system has no reflinks"
        return (*super().status(), ("Copies By", copies))

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer lies."""
        return (("Directory", self.layers.tree(layer_id)),)


def _refuse_what_directories_cannot(options: CreateOptions) -> None:
    for name, value in options.others:
        raise InvalidRequest(f"{name}={value}", f"the {NAME} driver knows no storage options")
    if options.size is not None or options.inodes is not None:
        raise OperationNotSupported(NAME, "limit a layer's size", "plain directories have no limits")
    if options.mount_label:
        raise OperationNotSupported(NAME, "label a layer's files", "they keep the labels that they have")
