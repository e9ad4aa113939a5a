"""The hooks of the EROFS driver, each in a few lines on top of layers, images and mounting."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from tempfile import TemporaryDirectory
from threading import Lock
from typing import BinaryIO

from hostspec.directory_layers import nearest_existing, prepare_root
from hostspec.disk_usage import measure_tree
from hostspec.errors import (
    DriverNotSupported,
    InvalidRequest,
    LayerInUse,
    OperationNotSupported,
    PrerequisitesMissing,
    StoreReadOnly,
    failing,
)
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount, in_user_namespace
from hostspec.kernel.mountfds import fsopen, move_mount, set_attributes
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import A_MOMENT, unmount, unmount_all
from hostspec.kernel.usernamespaces import user_namespace
from hostspec.ownership import shift_tree
from hostspec.treecopy import copy_changes
from hostspec.values import (
    Capabilities,
    Change,
    ChangeKind,
    CreateOptions,
    DiskUsage,
    LayerRef,
    MountOptions,
    Shifted,
    Shifting,
    ShiftOptions,
    StoredIds,
)
from hostspec_erofs.content import Difference
from hostspec_erofs.ids import carried_ids, shift_between
from hostspec_erofs.images import COMPRESSIONS, MKFS, make_image, mount_image
from hostspec_erofs.layers import Layer, Layers, Level, Record
from hostspec_erofs.mounting import MAX_DEPTH, mounted_levels, overlay

__all__ = ["DRIVER", "ErofsDriver", "open_driver"]

DRIVER = "erofs"

_ANY_MAP = IdMap.parse(["0:100000:65536"])
_THE_ROOT_DIRECTORY = (Change("/", ChangeKind.MODIFY),)


def open_driver(
    home: str, run_root: str, options: tuple[tuple[str, str], ...], read_only_homes: tuple[str, ...]
) -> ErofsDriver:
    """Open the driver at ``home``, without touching the disk; the factory that the entry point names.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Directory for what need not survive a reboot.
        options: ``compression``: ``none``, ``lz4`` (the default) or ``lz4hc``.
        read_only_homes: Homes in additional stores.

    Raises:
        InvalidRequest: An option is unknown, or its value is.
        PrerequisitesMissing: ``mkfs.erofs`` or the privilege to mount is missing.
        DriverNotSupported: The kernel lacks EROFS or overlayfs.
    """
    compression = "lz4"
    for name, value in options:
        if name != "compression" or value not in COMPRESSIONS:
            known = ", ".join(f"compression={each}" for each in COMPRESSIONS)
            raise InvalidRequest(f"{DRIVER}.{name}={value}", f"is no option of this driver; it knows {known}")
        compression = value
    if not can_mount() or in_user_namespace():
        raise PrerequisitesMissing(
            DRIVER, "mounting images needs CAP_SYS_ADMIN outside of user namespaces: run as root"
        )
    if shutil.which(MKFS) is None:
        raise PrerequisitesMissing(DRIVER, f"{MKFS} is missing; install the package erofs-utils")
    for filesystem in ("erofs", "overlay"):
        try:
            os.close(fsopen(filesystem))  # loads the module
        except OSError as error:
            raise DriverNotSupported(DRIVER, f"this kernel has no {filesystem}: {error}") from error
    return ErofsDriver(os.path.abspath(home), os.path.abspath(run_root), read_only_homes, compression)


class ErofsDriver:
    """Image layers as EROFS images, containers' layers as upper directories over them.

    A layer is filled in an upper directory. ``seal`` makes one file of it, if the layer is an image's.
    """

    def __init__(
        self, home: str, run_root: str, read_only_homes: Sequence[str] = (), compression: str = "lz4"
    ) -> None:
        """Take a home into use, as :func:`open_driver`; absolute paths."""
        self._home = home
        self._run_root = run_root
        self._compression = compression
        self._layers = Layers(home, read_only_homes)
        self._mounting = Lock()

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Layers are staged, and mounted wherever the caller likes."""
        return Capabilities(stages_layers=True, max_depth=MAX_DEPTH)

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make an upper directory; its root is a copy of the parent's, since it hides that."""
        _refuse_limits(options)
        below = self._layers.find(parent.layer_id) if parent else None
        record = Record(below and below.layer_id, sealed=options.read_only)
        with self._made(layer_id, record) as layer:
            self._add_upper(layer, options)

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap | None:
        """Make a hidden child of the template that adds nothing but a map, applied at each mount."""
        _refuse_limits(options)
        original = self._layers.find(template.layer_id)
        if parent is not None:
            self._layers.find(parent.layer_id)
        shift = shift_between(template.idmap, options.idmap)
        if shift is None or not self._can_show(self._layers.chain(original), shift):
            return None
        record = Record(template.layer_id, sealed=options.read_only, shift=shift)
        with self._made(layer_id, record) as layer:
            if not options.read_only:
                self._add_upper(layer, options)
        return options.idmap

    @contextmanager
    def _made(self, layer_id: str, record: Record) -> Iterator[Layer]:
        """Make a staged layer's directory; after a failure in the block it is gone again."""
        with failing(f"create layer {layer_id}"):
            path = self._layers.directories.new(layer_id)
            with self._layers.directories.abandoned_on_failure(path):
                os.mkdir(path, 0o700)
                os.mkdir(f"{path}/merged", 0o700)
                yield Layer(layer_id, path, record).write(record)

    def _add_upper(self, layer: Layer, options: CreateOptions) -> None:
        """Make the directory that takes what is written, with the root directory that is seen below it."""
        os.mkdir(layer.diff, 0o700)
        os.mkdir(layer.work, 0o700)
        shown = [level for level in self._layers.below(layer) if not level.layer.adds_nothing]
        if not shown:
            prepare_root(layer.diff, options)
            return
        with mounted_levels(shown[:1]) as (below,):
            copy_changes(below, layer.diff, _THE_ROOT_DIRECTORY)

    @hookimpl
    def seal(self, layer_id: str) -> None:
        """Make the image, if it is an image's layer."""
        with failing(f"make an image of layer {layer_id}"):
            self._layers.directories.staged(layer_id)
            layer = self._layers.find(layer_id)
            if not layer.record.sealed or not layer.has_diff:
                return
            unmount_all(os.path.realpath(layer.path))
            if not make_image(layer.image, layer.diff, self._compression):
                # It stays a directory, which is as good below an overlay, and is not written again.
                with suppress(FileNotFoundError):
                    os.unlink(layer.image)
                return
            layer.write(layer.record._replace(ids=carried_ids(layer.diff)))
            for directory in (layer.diff, layer.work):
                self._layers.area.put_aside(directory)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename the layer to where everyone sees it."""
        self.seal(layer_id)
        with failing(f"commit layer {layer_id}"):
            self._layers.directories.commit(layer_id)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Rename the layer into the working area, if no other stands on it."""
        staged = self._layers.area.has(layer_id)
        if not staged and not self.exists(layer_id):
            return
        layer = self._layers.find(layer_id)
        if not self._layers.is_own(layer):
            raise StoreReadOnly(os.path.dirname(layer.path), f"layer {layer_id} lies in an additional store")
        if not staged and (users := self._layers.users(layer_id)):
            raise LayerInUse(layer_id, users)
        with failing(f"remove layer {layer_id}"):
            unmount_all(os.path.realpath(layer.path))
            self._layers.directories.put_aside(layer.path)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's directory, in the read-only homes too."""
        return self._layers.directories.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the home."""
        with failing("list layers"):
            return self._layers.directories.names()

    @hookimpl
    def reclaim(self) -> int:
        """Delete what was put aside, here and by dead processes."""
        with failing("delete removed layers"):
            return self._layers.area.reclaim()

    @hookimpl
    def close(self) -> None:
        """Give up the working area; nothing else stays between two calls."""
        with failing("give up the working area"):
            self._layers.area.close()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount the chain as one overlay; a sealed layer is read-only, whatever is asked for."""
        if unknown := set(options.options) - {"ro", "rw"}:
            raise InvalidRequest(f"mount option {min(unknown)!r}", "the erofs driver knows only ro and rw")
        if options.mount_label:
            raise OperationNotSupported(DRIVER, "label a mount", "files keep the labels that they have")
        layer = self._layers.find(layer_id)
        read_only = options.read_only or "ro" in options.options or not self._is_writable(layer)
        with failing(f"mount layer {layer_id}"):
            if options.target is not None:
                self._mount_at(options.target, layer, options.idmap, read_only=read_only)
                return options.target
            place = layer.path if self._layers.is_own(layer) else f"{self._run_root}/{layer_id}"
            shared = f"{place}/merged"
            # Between looking and mounting no other thread may mount here too.
            with self._mounting:
                if not is_mountpoint(shared):
                    os.makedirs(shared, 0o700, exist_ok=True)
                    self._mount_at(shared, layer, options.idmap, read_only=read_only)
            return shared

    def _mount_at(self, target: str, layer: Layer, idmap: IdMap, *, read_only: bool) -> None:
        levels = [Level(level.layer, level.shift.then(idmap)) for level in self._layers.below(layer)]
        if read_only:
            own = IdMap() if layer.record.written_under is not None else idmap
            levels.insert(0, Level(layer, own))
        elif idmap:
            layer = self._written_under(layer, idmap)
        mount = overlay(layer.path, levels, None if read_only else layer)
        try:
            move_mount(mount, target)
        finally:
            os.close(mount)

    def _written_under(self, layer: Layer, idmap: IdMap) -> Layer:
        """Prepare an upper directory for a mount under a map, which overlayfs applies only below it."""
        if layer.record.written_under == idmap:
            return layer
        if layer.record.written_under is not None or os.listdir(layer.diff):
            reason = "it holds files already, with the owners of another map; mount a new layer on top of it"
            raise OperationNotSupported(DRIVER, f"mount layer {layer.layer_id} under {idmap}", reason)
        layer = layer.write(layer.record._replace(written_under=idmap))
        shift_tree(layer.diff, IdMap(), idmap, squash=True)
        return layer

    def _is_writable(self, layer: Layer) -> bool:
        if self._layers.area.has(layer.layer_id):
            return layer.has_diff
        return layer.has_diff and not layer.record.sealed and self._layers.is_own(layer)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Unmount ``path``."""
        with failing(f"unmount layer {layer_id}"):
            if is_mountpoint(path):
                unmount(path, patience=A_MOMENT)

    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Try it on an image that has no name, once in a process."""
        refusal = self._why_images_cannot_be_mapped
        if refusal is None:
            try:
                user_namespace(idmap)
            except OSError as error:
                refusal = f"the kernel does not take this map: {error}"
        reason = refusal or "tried an idmapped mount of an EROFS image"
        return Shifting(possible=refusal is None, reason=reason, stored=StoredIds.MAPPED)

    @cached_property
    def _why_images_cannot_be_mapped(self) -> str | None:
        try:
            image = os.open(nearest_existing(self._home), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                with TemporaryDirectory() as nothing:
                    make_image(image, nothing, "none")
                mount = mount_image(image)
            finally:
                os.close(image)
            try:
                set_attributes(mount, userns_fd=user_namespace(_ANY_MAP))
            finally:
                os.close(mount)
        except OSError as error:
            return f"an EROFS image could not be mapped: {error}"
        return None

    def _can_show(self, chain: Sequence[Level], shift: IdMap) -> bool:
        """Tell whether a chain can be shown with other IDs without looking at any file."""
        if any(level.layer.has_diff for level in chain):
            return False  # somebody may write to it, or has written what nobody knows
        if shift and self._why_images_cannot_be_mapped is not None:
            return False
        return all(
            level.layer.record.ids is None or level.layer.record.ids.are_covered_by(level.shift.then(shift))
            for level in chain
        )

    # Content

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change] | None:
        """Read them off what the layer adds, where ``parent`` is what it stands on."""
        difference = self._difference(layer, parent)
        return None if difference is None else difference.changes()

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO] | None:
        """Pack what the layer adds, where ``parent`` is what it stands on."""
        difference = self._difference(layer, parent)
        return None if difference is None else difference.packed()

    def _difference(self, layer: LayerRef, parent: LayerRef | None) -> Difference | None:
        found = self._layers.find(layer.layer_id)
        if parent is not None:
            self._layers.find(parent.layer_id)
        if found.record.below != (parent and parent.layer_id) or found.adds_nothing:
            return None
        unmapped = layer.shifted and found.record.written_under is None
        # Through a layer with a shift, what is below shows under the layer's own map.
        below_map = layer.idmap if found.record.shift or parent is None else parent.idmap
        return Difference(self._layers.chain(found), IdMap() if unmapped else layer.idmap, below_map)

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted | None:
        """Note a map for what is below, where the layer itself is still empty and the map covers all."""
        layer = self._layers.find(layer_id)
        shift = shift_between(old, new)
        below = list(self._layers.below(layer))
        if shift is None or not below or not self._is_writable(layer) or os.listdir(layer.diff):
            return None
        if not self._can_show(below, shift):
            return None
        with failing(f"change the ID map of layer {layer_id}"):
            layer.write(layer.record._replace(shift=layer.record.shift.then(shift)))
            return shift_tree(layer.diff, old, new, squash=options.squash)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say what images are made with, and what this kernel can do with them."""
        refusal = self._why_images_cannot_be_mapped
        mapped = "yes (tried)" if refusal is None else f"no ({refusal})"
        return (("Compression", self._compression), ("Idmapped images", mapped))

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer lies and on what it stands."""
        layer = self._layers.find(layer_id)
        chain = ", ".join(level.layer.layer_id for level in self._layers.below(layer))
        kind = "upper directory" if layer.has_diff else "only a map" if layer.adds_nothing else "image"
        return (("Directory", layer.path), ("Adds", kind), ("Stands on", chain or "nothing"))

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Measure the layer's own directory: one image, or the files that were written."""
        layer = self._layers.find(layer_id)
        with failing(f"measure layer {layer_id}"):
            return measure_tree(layer.path, blocks_are_shared=False)


def _refuse_limits(options: CreateOptions) -> None:
    for name, value in options.others:
        raise InvalidRequest(f"{name}={value}", f"the {DRIVER} driver knows no storage options")
    if options.size is not None or options.inodes is not None:
        raise OperationNotSupported(DRIVER, "limit a layer's size", "upper directories have no limits")
    if options.mount_label:
        raise OperationNotSupported(DRIVER, "label a layer's files", "they keep the labels that they have")
