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
from typing import BinaryIO

from hostspec.directory_layers import (
    DirectoryLayers,
    mount_directory,
    prepare_root,
    unmount_directory,
    unmount_everything_of,
)
from hostspec.errors import InvalidRequest, OperationNotSupported, WrongFilesystem, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    CreateOptions,
    DiskUsage,
    LayerRef,
    MountOptions,
    Shifted,
    ShiftOptions,
)
from hostspec.working_area import WorkingArea
from hostspec_btrfs import ioctls, quotas
from hostspec_btrfs.deletion import delete_tree
from hostspec_btrfs.options import least_size
from hostspec_btrfs.subvolumes import make_writable, opened, opened_path, snapshot

__all__ = ["NAME", "BtrfsDriver", "open_driver"]

NAME = "btrfs"


def open_driver(
    home: str,
    run_root: str,  # noqa: ARG001 - part of every factory's signature; btrfs keeps nothing there
    options: tuple[tuple[str, str], ...],
    read_only_homes: tuple[str, ...],
) -> BtrfsDriver:
    """Open the driver at ``home``, without touching the disk.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Not used.
        options: ``min_space``: the least ``size`` that a layer may be limited to.
        read_only_homes: Homes in additional stores, on the same file system.

    Raises:
        WrongFilesystem: ``home`` is not, or would not be, on btrfs.
        InvalidRequest: An option is unknown, or its value is no size.
    """
    from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 - loads ctypes

    found = filesystem_name(_nearest_existing(home))
    if found != NAME:
        raise WrongFilesystem(NAME, f"{home} is on {found}; it must be on btrfs (mkfs.btrfs makes one)")
    return BtrfsDriver(home, read_only_homes, least_size=least_size(options))


class BtrfsDriver:
    """Layers as subvolumes.

    A new layer is a snapshot of its parent or template, made in the working area at a cost that
    does not depend on what is in it; a rename commits it. Snapshots stand on their own,
    so any layer may be removed at any time.
    """

    def __init__(self, home: str, read_only_homes: Sequence[str] = (), *, least_size: int = 0) -> None:
        """Take a home on btrfs; it need not exist.

        Args:
            home: Absolute path.
            read_only_homes: Homes of this driver whose layers may be mounted and copied, never written.
            least_size: The least limit that a layer may have, in bytes.
        """
        self._home = home
        self._limits = os.path.join(home, "quotas")
        self._least_size = least_size
        self._area = WorkingArea(home, delete=delete_tree)
        self._layers = DirectoryLayers(
            os.path.join(home, "subvolumes"),
            self._area,
            [os.path.join(each, "subvolumes") for each in read_only_homes],
        )

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Say what can be done here; only who may mount can give private and read-only views."""
        mounts = can_mount()
        return Capabilities(
            stages_layers=True,
            layers_are_whole=True,
            mounts_privately=mounts,
            read_only_mounts=mounts,
            limits_size=self._quotas_are_on(),
        )

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make a snapshot of the parent, or a new subvolume."""
        self._refuse_what_cannot_be(options)
        if parent is None:
            content = partial(_make_empty, options)
        else:
            content = partial(_make_like, self._layers.tree(parent.layer_id), options)
        with failing(f"create layer {layer_id}"):
            self._make(self._layers.new(layer_id), options, content)

    @hookimpl
    def create_from_template(
        self,
        layer_id: str,
        template: LayerRef,
        parent: LayerRef | None,  # noqa: ARG002 - a snapshot of the template has what comes from it
        options: CreateOptions,
    ) -> IdMap | None:
        """Make a snapshot of the template, which shares its files, owners included."""
        self._refuse_what_cannot_be(options)
        source = self._layers.tree(template.layer_id)
        with failing(f"create layer {layer_id}"):
            made = self._make(self._layers.new(layer_id), options, partial(_snapshot_of, source))
        # A template that is no subvolume here is for the fallback, which maps while it copies.
        return template.idmap if made else None

    def _make(self, tree: str, options: CreateOptions, content: Callable[[int, str], bool]) -> bool:
        """Make a layer by a function of a directory's descriptor and a name; false where that declines."""
        place, name = os.path.split(tree)
        with opened_path(place) as place_fd, self._layers.abandoned_on_failure(tree):
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
            )
            raise OperationNotSupported(NAME, "limit a layer's size", reason)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it."""
        with failing(f"commit layer {layer_id}"):
            with opened_path(self._layers.staged(layer_id)) as fd:
                limit = quotas.limit_of(fd)
            self._layers.commit(layer_id)
            if limit is not None:
                self._note_limit(layer_id, limit)

    def _note_limit(self, layer_id: str, limit: int) -> None:
        """Write down a limit where the Go driver does, which sets it again at each mount."""
        os.makedirs(self._limits, 0o700, exist_ok=True)
        with open(os.path.join(self._limits, layer_id), "w", encoding="ascii") as file:
            file.write(str(limit))

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Put a layer aside; snapshots stand on their own, so no other layer is ever in the way."""
        committed = self._layers.committed(layer_id)
        with failing(f"remove layer {layer_id}"):
            if not self._area.has(layer_id):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._limits, layer_id))
                if not os.path.lexists(committed):
                    return
            tree = self._layers.own_tree(layer_id)
            unmount_everything_of(tree)
            with opened_path(tree) as fd:
                # A directory that is moved must itself be writable, since its ".." changes.
                make_writable(fd)
            self._layers.put_aside(tree)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's subvolume, in the read-only homes too."""
        return self._layers.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the directories in ``subvolumes``."""
        with failing("list layers"):
            return self._layers.names()

    @hookimpl
    def reclaim(self) -> int:
        """Delete what was put aside, here and by dead processes."""
        with failing("delete removed layers"):
            return self._area.reclaim()

    @hookimpl
    def cleanup(self) -> None:
        """Give up the working area with what is left in it, and a mount that the Go library left.

        That library mounts the home on itself whenever it opens it, and not always unmounts it.
        """
        from hostspec.kernel.self_binds import unbind_from_itself  # noqa: PLC0415 - loads ctypes

        with failing("give up the home"):
            self._area.close()
            if can_mount():
                unbind_from_itself(self._home)

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Return the layer's own subvolume, or bind it to the caller's directory."""
        with failing(f"mount layer {layer_id}"):
            return mount_directory(NAME, self._layers.tree(layer_id), options)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Take a bind down; for the layer's own subvolume there is nothing to do."""
        with failing(f"unmount {path}"):
            if not self._layers.is_shared_mount(layer_id, path):
                unmount_directory(path)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say what the layers lie on, and what can be done there."""
        return (
            ("Backing Filesystem", NAME),
            ("Quotas", "on" if self._quotas_are_on() else "off, or not to be seen without CAP_SYS_ADMIN"),
            ("Private Mounts", "bind" if can_mount() else "none: they need CAP_SYS_ADMIN"),
        )

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer lies."""
        tree = self._layers.tree(layer_id)
        with failing(f"look at layer {layer_id}"), opened_path(tree) as fd:
            return (("Subvolume", tree), ("Subvolume ID", str(ioctls.subvolume_id(fd))))

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Ask the file system block by block which ones the layer shares."""
        from hostspec.disk_usage import measure_tree  # noqa: PLC0415 - only who measures needs it

        tree = self._layers.tree(layer_id)
        with failing(f"measure layer {layer_id}"), opened_path(tree) as fd:
            return measure_tree(tree, blocks_are_shared=True, limit_bytes=quotas.limit_of(fd))

    def _quotas_are_on(self) -> bool:
        with failing("look for quotas"), opened_path(_nearest_existing(self._home)) as fd:
            return quotas.are_on(fd)

    # Content

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack straight into the subvolume, where a whiteout simply deletes."""
        from hostspec.archive.unpack import unpack  # noqa: PLC0415 - only who fills a layer needs it
        from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415

        tree = self._layers.own_tree(layer_id)
        with failing(f"apply a diff to layer {layer_id}"):
            return unpack(
                stream,
                tree,
                idmap=options.idmap,
                whiteouts=WhiteoutForm.PLAIN,
                squash=options.squash,
                force_mode=options.force_mode,
                progress=options.progress,
            )

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change owners in place, in nested subvolumes too; of content nothing is copied."""
        from hostspec.ownership import shift_tree  # noqa: PLC0415 - only who maps needs it

        tree = self._layers.own_tree(layer_id)
        with failing(f"change the ID map of layer {layer_id}"):
            return shift_tree(
                tree, old, new, squash=options.squash, threads=options.threads, progress=options.progress
            )


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


def _nearest_existing(path: str) -> str:
    """Return the deepest directory above ``path`` that exists, or ``path`` itself."""
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    return existing
