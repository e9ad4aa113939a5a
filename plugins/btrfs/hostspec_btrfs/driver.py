"""The hooks of the btrfs driver.

On disk it is the Go library's: a committed layer is the subvolume ``<home>/subvolumes/<layer ID>``,
and ``<home>/quotas/<layer ID>`` holds its limit in bytes where it has one
(containers/storage, drivers/btrfs/btrfs.go).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from hostspec.directory_layers import (
    NO_OPTIONS,
    DirectoryDriver,
    DirectoryOptions,
    nearest_existing,
    prepare_root,
    split_options,
)
from hostspec.errors import InvalidRequest, OperationNotSupported, WrongFilesystem, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount
from hostspec.values import Capabilities, CreateOptions, DiskUsage, LayerRef
from hostspec_btrfs import ioctls, quotas
from hostspec_btrfs.deletion import delete_tree
from hostspec_btrfs.options import least_size
from hostspec_btrfs.subvolumes import make_writable, opened, opened_path, snapshot

__all__ = ["NAME", "BtrfsDriver", "open_driver"]

NAME = "btrfs"


def open_driver(
    home: str,
    run_root: str,
    options: tuple[tuple[str, str], ...],
    read_only_homes: tuple[str, ...],
) -> BtrfsDriver:
    """Open the driver at ``home``, without touching the disk.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Directory for the mounts of shifted layers.
        options: Those of :mod:`hostspec.directory_layers.options` and :mod:`hostspec_btrfs.options`.
        read_only_homes: Homes in additional stores, on the same file system.

    Raises:
        WrongFilesystem: ``home`` is not, or would not be, on btrfs.
        InvalidRequest: An option is unknown, or its value is.
    """
    from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 - loads ctypes

    found = filesystem_name(nearest_existing(home))
    if found != NAME:
        raise WrongFilesystem(NAME, f"{home} is on {found}; it must be on btrfs (mkfs.btrfs makes one)")
    chosen, others = split_options(NAME, options)
    return BtrfsDriver(home, run_root, read_only_homes, options=chosen, least_size=least_size(others))


class BtrfsDriver(DirectoryDriver):
    """Layers as subvolumes.

    A new layer is a snapshot of its parent or template, made at a cost that does not depend on what
    is in it.
    """

    def __init__(
        self,
        home: str,
        run_root: str,
        read_only_homes: Sequence[str] = (),
        *,
        options: DirectoryOptions = NO_OPTIONS,
        least_size: int = 0,
    ) -> None:
        """Take a home on btrfs; it need not exist.

        Args:
            home: Absolute path.
            run_root: Absolute path.
            read_only_homes: Homes of this driver whose layers may be mounted and copied, never written.
            options: What the user chose.
            least_size: The least limit that a layer may have, in bytes.
        """
        super().__init__(
            NAME,
            home,
            run_root,
            read_only_homes,
            directory="subvolumes",
            delete=delete_tree,
            options=options,
        )
        self._limits = os.path.join(home, "quotas")
        self._least_size = least_size

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Say what can be done here: limits too, where quotas are on."""
        return super().capabilities()._replace(limits_size=self._quotas_are_on())

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make a snapshot of the parent, or a new subvolume."""
        self._refuse_what_cannot_be(options)
        if parent is None:
            content = partial(_make_empty, options)
        else:
            content = partial(_make_like, self.layers.tree(parent.layer_id), options)
        with failing(f"create layer {layer_id}"):
            self._make(self.layers.new(layer_id), options, content)

    @hookimpl
    def create_from_template(
        self,
        layer_id: str,
        template: LayerRef,
        parent: LayerRef | None,
        options: CreateOptions,
    ) -> IdMap | None:
        """Make a snapshot of the template, which shares its files, owners included."""
        self._refuse_what_cannot_be(options)
        source = self.layers.tree(template.layer_id)
        if parent is not None:
            self.layers.tree(parent.layer_id)  # refused where it is not there; the snapshot has all of it
        with failing(f"create layer {layer_id}"):
            made = self._make(self.layers.new(layer_id), options, partial(_snapshot_of, source))
        # A template that is no subvolume here is for the fallback, which maps while it copies.
        return template.idmap if made else None

    def _make(self, tree: str, options: CreateOptions, content: Callable[[int, str], bool]) -> bool:
        """Make a layer by a function of a directory's descriptor and a name; false where that declines."""
        place, name = os.path.split(tree)
        with opened_path(place) as place_fd, self.layers.abandoned_on_failure(tree):
            if not content(place_fd, name):
                return False
            with opened(place_fd, name) as layer_fd:
                quotas.set_limit(layer_fd, options.size)
            return True

    def _refuse_what_cannot_be(self, options: CreateOptions) -> None:
        for name, value in options.others:
            raise InvalidRequest(f"{name}={value}", f"the {NAME} driver knows no such storage option")
        if options.inodes is not None:
            raise OperationNotSupported(NAME, "limit a layer's inodes", "btrfs has no such limit")
        if options.mount_label:
            raise OperationNotSupported(NAME, "label a layer's files", "they keep the labels that they have")
        if options.size is None:
            return
        if options.size <= 0 or options.size < self._least_size:
            least = max(1, self._least_size)
            raise InvalidRequest(f"size={options.size}", f"must be at least {least} bytes")
        if not self._quotas_are_on():
            reason = (
                "quotas are off on this file system; hostspec never switches them on, since that "
                "concerns all its users ('btrfs quota enable' does)"
                if can_mount()
                else "only who has CAP_SYS_ADMIN can limit it"
            )
            raise OperationNotSupported(NAME, "limit a layer's size", reason)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it, and note its limit."""
        with failing(f"commit layer {layer_id}"):
            with opened_path(self.layers.staged(layer_id)) as fd:
                limit = quotas.limit_of(fd)
            super().commit(layer_id)
            if limit is not None:
                self._note_limit(layer_id, limit)

    def _note_limit(self, layer_id: str, limit: int) -> None:
        """Write down a limit where the Go driver does, which sets it again at each mount."""
        os.makedirs(self._limits, 0o700, exist_ok=True)
        with open(os.path.join(self._limits, layer_id), "w", encoding="ascii") as file:
            file.write(str(limit))

    def prepare_removal(self, layer_id: str, tree: str) -> None:
        """Forget a limit, and let a read-only subvolume be moved."""
        if not self.area.has(layer_id):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._limits, layer_id))
        with opened_path(tree) as fd:
            # A directory that is moved must itself be writable, since its ".." changes.
            make_writable(fd)

    @hookimpl
    def cleanup(self) -> None:
        """Take down, too, a mount of the home on itself.

        The Go library makes it whenever it opens the home, and does not always unmount it.
        """
        super().cleanup()
        if can_mount():
            from hostspec.kernel.self_binds import unbind_from_itself  # noqa: PLC0415 - loads ctypes

            with failing("give up the home"):
                unbind_from_itself(self.home)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say, too, whether there are quotas."""
        quotas_are = "on" if self._quotas_are_on() else "off, or not to be seen without CAP_SYS_ADMIN"
        return (*super().status(), ("Quotas", quotas_are))

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer lies."""
        tree = self.layers.tree(layer_id)
        with failing(f"look at layer {layer_id}"), opened_path(tree) as fd:
            return (("Subvolume", tree), ("Subvolume ID", str(ioctls.subvolume_id(fd))))

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Ask the file system block by block which ones the layer shares."""
        from hostspec.disk_usage import measure_tree  # noqa: PLC0415 - only who measures needs it

        tree = self.layers.tree(layer_id)
        with failing(f"measure layer {layer_id}"), opened_path(tree) as fd:
            return measure_tree(tree, blocks_are_shared=True, limit_bytes=quotas.limit_of(fd))

    def _quotas_are_on(self) -> bool:
        with failing("look for quotas"), opened_path(nearest_existing(self.home)) as fd:
            return quotas.are_on(fd)


def _make_empty(options: CreateOptions, place_fd: int, name: str) -> bool:
    ioctls.create_subvolume(place_fd, name)
    with opened(place_fd, name) as layer_fd:
        prepare_root(layer_fd, options)
    return True


def _snapshot_of(source: str, place_fd: int, name: str) -> bool:
    with opened_path(source) as source_fd:
        return snapshot(source_fd, place_fd, name)


def _make_like(source: str, options: CreateOptions, place_fd: int, name: str) -> bool:
    """Make a layer with the content of another: a snapshot, or a copy of what is no subvolume here.

    A store restored from a backup has plain directories; an additional store may be on another file system.
    """
    if not _snapshot_of(source, place_fd, name):
        from hostspec.treecopy import copy_tree  # noqa: PLC0415 - only who copies needs it

        ioctls.create_subvolume(place_fd, name)
        copy_tree(source, f"/proc/self/fd/{place_fd}/{name}", progress=options.progress)
    return True
