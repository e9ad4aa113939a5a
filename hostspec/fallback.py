"""What is done for a driver that does not do it itself.

:class:`Fallback` is the last implementation of every hook that a driver may leave out or decline.
It uses nothing but the driver's other hooks and mounted trees, so it works for any driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from hostspec.errors import OperationNotSupported, Unknown, failing
from hostspec.hookspecs import GraphDriverSpec, hookimpl
from hostspec.idmap import IdMap
from hostspec.values import (
    ApplyOptions,
    Change,
    ChangeKind,
    CreateOptions,
    DedupOptions,
    DiskUsage,
    LayerRef,
    Shifted,
    Shifting,
    ShiftOptions,
    TemplateCost,
)

if TYPE_CHECKING:
    from typing import Protocol

    class Mounted(Protocol):
        """How the fallbacks get at a layer's tree: :meth:`hostspec.driver.GraphDriver.mounted`."""

        def __call__(
            self, layer_id: str, *, idmap: IdMap = ..., read_only: bool = True
        ) -> AbstractContextManager[str]: ...


__all__ = ["Fallback"]


class Fallback:
    """The driver-oblivious implementation of the optional hooks."""

    def __init__(self, driver: str, home: str, hooks: GraphDriverSpec, mounted: Mounted) -> None:
        """Serve one driver.

        Args:
            driver: Its name, for messages.
            home: Its home directory.
            hooks: Its hooks, these fallbacks included.
            mounted: Gives a layer's tree for the time of a ``with`` block.
        """
        self._driver = driver
        self._home = home
        self._hooks = hooks
        self._mounted = mounted

    # A copy of a template

    @hookimpl(trylast=True)
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Copy the template, mapping each file once, and leave nothing when that fails."""
        whole = self._hooks.capabilities().layers_are_whole
        if whole and parent is not None and not self._hooks.exists(layer_id=parent.layer_id):
            raise Unknown("layer", parent.layer_id)
        self._hooks.create(layer_id=layer_id, parent=None if whole else parent, options=options)
        try:
            if whole:
                self._copy_whole(layer_id, template, options)
            else:
                self._copy_difference(layer_id, template, parent, options)
        except BaseException:
            self._hooks.remove(layer_id=layer_id)
            self._hooks.reclaim()
            raise
        return options.idmap

    def _copy_whole(self, layer_id: str, template: LayerRef, options: CreateOptions) -> None:
        """Copy a layer that is a complete tree of plain files: one pass, entry by entry."""
        from hostspec.idshift import IdShift  # noqa: PLC0415
        from hostspec.treecopy import copy_tree  # noqa: PLC0415

        with (
            self._shown(template) as source,
            self._mounted(layer_id, read_only=False) as target,
            failing(f"copy layer {template.layer_id} to {layer_id}"),
        ):
            shift = IdShift(template.idmap, options.idmap, squash=options.squash)
            copy_tree(source, target, shift=shift, progress=options.progress)

    def _copy_difference(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> None:
        """Map what comes from the parent where it is, and bring the rest already mapped."""
        if parent is not None and parent.idmap != options.idmap:
            # First, as nobody needs to map what the template does not have.
            self._delete_what_is_missing(layer_id, template, parent)
            self._hooks.update_idmap(
                layer_id=layer_id,
                old=parent.idmap,
                new=options.idmap,
                options=ShiftOptions(
                    squash=options.squash,
                    threads=options.threads,
                    mount_label=options.mount_label,
                    progress=options.progress,
                ),
            )
        if self._copy_by_reflink(layer_id, template, parent, options):
            return
        with self._hooks.diff(layer=template, parent=parent) as stream:  # type: ignore[union-attr]
            self._hooks.apply_diff(
                layer_id=layer_id,
                stream=stream,
                options=ApplyOptions(idmap=options.idmap, squash=options.squash, progress=options.progress),
            )

    def _delete_what_is_missing(self, layer_id: str, template: LayerRef, parent: LayerRef) -> None:
        """Delete from a copy of the parent what the template has deleted."""
        changes = self._hooks.changes(layer=template, parent=parent) or ()
        deletions = [change for change in changes if change.kind is ChangeKind.DELETE]
        if not deletions:
            return
        from hostspec.treecopy import copy_changes  # noqa: PLC0415

        with (
            self._shown(template) as source,
            self._mounted(layer_id, read_only=False) as target,
            failing(f"copy layer {template.layer_id} to {layer_id}"),
        ):
            copy_changes(source, target, deletions)

    def _copy_by_reflink(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> bool:
        """Bring the template's own files by reflink, if both trees are plain directories that can."""
        if not self._can_share_blocks():
            return False
        from hostspec.idshift import IdShift  # noqa: PLC0415
        from hostspec.treecopy import copy_changes  # noqa: PLC0415

        with (
            self._shown(template) as source,
            self._mounted(layer_id, read_only=False) as target,
        ):
            if not self._are_plain_directories(source, target):
                return False
            changes = self._hooks.changes(layer=template, parent=parent)
            with failing(f"copy layer {template.layer_id} to {layer_id}"):
                shift = IdShift(template.idmap, options.idmap, squash=options.squash)
                copy_changes(source, target, changes or (), shift=shift, progress=options.progress)
        return True

    def _are_plain_directories(self, *trees: str) -> bool:
        """Tell whether layers' trees lie on the home's own file system, so that they can share its blocks."""
        from hostspec.kernel.mountinfo import filesystem_device  # noqa: PLC0415

        return {filesystem_device(tree) for tree in trees} <= {filesystem_device(self._home)}

    def template_cost(self, *, native: bool) -> TemplateCost:
        """Say what a copy of a template costs; see :meth:`hostspec.driver.GraphDriver.template_cost`."""
        capabilities = self._hooks.capabilities()
        if native and not capabilities.template_copies_content:
            return TemplateCost.METADATA
        # Layers that are differences go through a tar here, and between file systems nothing is shared.
        copies_files = capabilities.layers_are_whole and not capabilities.layers_are_filesystems
        if not native and not copies_files:
            return TemplateCost.CONTENT
        return TemplateCost.REFLINKS if self._can_share_blocks() else TemplateCost.CONTENT

    def _can_share_blocks(self) -> bool:
        try:
            return self._home_has_reflinks
        except OSError:
            return False  # on a full file system, or one that is read-only, it cannot be tried

    @cached_property
    def _home_has_reflinks(self) -> bool:
        from hostspec.kernel.reflink import supports_reflinks  # noqa: PLC0415

        place = self._home
        while not os.path.isdir(place):  # as it need not be before the first layer
            place = os.path.dirname(place)
        return supports_reflinks(place)

    # Content

    @hookimpl(trylast=True)
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        """Compare the two mounted trees."""
        return self._compared(layer, parent)

    def _compared(self, layer: LayerRef, parent: LayerRef | None) -> Iterator[Change]:
        from hostspec.archive.changes import compare_trees  # noqa: PLC0415

        with (
            self._shown(layer) as new_root,
            self._shown(parent) if parent else nullcontext() as old_root,
            failing(f"compare layer {layer.layer_id} with its parent"),
        ):
            yield from compare_trees(
                new_root,
                old_root,
                new_map=layer.idmap,
                old_map=parent.idmap if parent else IdMap(),
            )

    def _shown(self, layer: LayerRef) -> AbstractContextManager[str]:
        """Give a layer's whole tree with one map throughout: that of its reference."""
        return self._mounted(layer.layer_id, idmap=layer.idmap if layer.shifted else IdMap())

    @hookimpl(trylast=True)
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        """Pack what ``changes`` names."""
        return self._packed(layer, parent)

    @contextmanager
    def _packed(self, layer: LayerRef, parent: LayerRef | None) -> Iterator[BinaryIO]:
        from hostspec.archive.pack import pack  # noqa: PLC0415

        changes = self._hooks.changes(layer=layer, parent=parent) or ()
        with (
            self._shown(layer) as root,
            failing(f"diff layer {layer.layer_id}"),
            pack(root, changes, idmap=layer.idmap) as stream,
        ):
            yield stream

    @hookimpl(trylast=True)
    def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int:
        """Add up the files that ``changes`` names, each inode once."""
        from hostspec.disk_usage import content_bytes  # noqa: PLC0415

        with self._shown(layer) as root, failing(f"measure layer {layer.layer_id}"):
            return content_bytes(root, self._hooks.changes(layer=layer, parent=parent) or ())

    @hookimpl(trylast=True)
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack into the mounted tree, where a whiteout simply deletes."""
        from hostspec.archive.unpack import unpack  # noqa: PLC0415
        from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415

        with (
            self._mounted(layer_id, read_only=False) as root,
            failing(f"apply a diff to layer {layer_id}"),
        ):
            return unpack(
                stream,
                root,
                idmap=options.idmap,
                whiteouts=WhiteoutForm.PLAIN,
                squash=options.squash,
                force_mode=options.force_mode,
                progress=options.progress,
            )

    @hookimpl(trylast=True)
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change the owners in the mounted tree."""
        from hostspec.ownership import shift_tree  # noqa: PLC0415

        with (
            self._mounted(layer_id, read_only=False) as root,
            failing(f"change the ID map of layer {layer_id}"),
        ):
            return shift_tree(
                root, old, new, squash=options.squash, threads=options.threads, progress=options.progress
            )

    # Facts

    @hookimpl(trylast=True)
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Walk the mounted tree: what it shares with its parent cannot be told from here."""
        from hostspec.disk_usage import measure_tree  # noqa: PLC0415

        with self._mounted(layer_id) as root, failing(f"measure layer {layer_id}"):
            return measure_tree(root, blocks_are_shared=self._can_share_blocks())

    @hookimpl(trylast=True)
    def supports_shifting(self, idmap: IdMap) -> Shifting:  # noqa: ARG002
        """Say no."""
        return Shifting(
            possible=False, reason=f"driver {self._driver!r} does not mount layers under an ID map"
        )

    @hookimpl(trylast=True)
    def status(self) -> Sequence[tuple[str, str]]:
        """Know nothing."""
        return ()

    @hookimpl(trylast=True)
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:  # noqa: ARG002
        """Know nothing."""
        return ()

    @hookimpl(trylast=True)
    def reclaim(self) -> int:
        """Have nothing to delete."""
        return 0

    @hookimpl(trylast=True)
    def dedup(self, layer_ids: Sequence[str], options: DedupOptions) -> int:
        """Share blocks among layers that are plain directories on a file system with reflinks."""
        try:
            can_share = self._home_has_reflinks
        except OSError as error:
            raise OperationNotSupported(self._driver, "dedup", str(error)) from error
        if not can_share:
            reason = f"files at {self._home} cannot share their blocks; xfs and btrfs can do that"
            raise OperationNotSupported(self._driver, "dedup", reason)
        from hostspec.directory_layers.deduplication import share_equal_files  # noqa: PLC0415

        with ExitStack() as mounted:
            # Writable, as a read-only mount would be in the way of sharing too.
            trees = [mounted.enter_context(self._mounted(each, read_only=False)) for each in layer_ids]
            if not self._are_plain_directories(*trees):
                raise OperationNotSupported(self._driver, "dedup", "its layers are no plain directories")
            with failing("dedup"):
                return share_equal_files(trees, options.method)
