"""The driver object: the hooks, each in a few lines on top of layout, mounting and the ownership pass.

A layer is made in the working area of its process and renamed into the home by ``commit``. A copy of a
template is a *hidden child*: a layer on top of the template that differs from it in nothing yet, and
in its IDs after ``update_idmap``. Nothing but the ``lower`` file tells.
"""

# Modules that call the kernel or handle archives are imported by the hooks that use them: most commands mount
# nothing, and every command opens a driver.
# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from hostspec.errors import LayerInUse, OperationNotSupported, StoreReadOnly, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.self_binds import bind_on_itself, unbind_from_itself
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    Change,
    CreateOptions,
    DedupOptions,
    DiskUsage,
    LayerRef,
    MountOptions,
    Shifted,
    Shifting,
    ShiftOptions,
    StoredIds,
)
from hostspec_overlay.dependents import Dependents
from hostspec_overlay.environment import check_usable, usual_choices, whiteout_form
from hostspec_overlay.homes import Homes
from hostspec_overlay.layout import MAX_DEPTH, LayerDirectory, layer_ids, numbered_diffs
from hostspec_overlay.options import (
    DRIVER,
    MountChoices,
    parse_mount_options,
    parse_options,
    refuse_storage_options,
)

if TYPE_CHECKING:
    from hostspec_overlay.content import Difference
    from hostspec_overlay.probes import Probes

__all__ = ["OverlayDriver", "open_driver"]

_DISABLE_SHIFTING = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"
"""Environment variable by which newer versions of containers/storage are kept from shifting."""


def open_driver(
    home: str, run_root: str, options: tuple[tuple[str, str], ...], read_only_homes: tuple[str, ...]
) -> OverlayDriver:
    """Open the driver; the factory that the entry point names.

    Args:
        home: Absolute path of the directory for its layers.
        run_root: Absolute path of the directory for what need not survive a reboot.
        options: Storage options, see :mod:`hostspec_overlay.options`.
        read_only_homes: Homes in additional stores.

    Raises:
        InvalidRequest: An option is not known, or not with this value.
        OperationNotSupported: An option cannot be honoured.
        DriverUnavailable: Overlayfs cannot be used at ``home``.
    """
    return OverlayDriver(home, run_root, options, read_only_homes)


class OverlayDriver:
    """The overlay driver at one home; :class:`hostspec.hookspecs.GraphDriverSpec` says what hooks promise."""

    def __init__(
        self,
        home: str,
        run_root: str,
        options: Sequence[tuple[str, str]] = (),
        read_only_homes: Sequence[str] = (),
    ) -> None:
        """Take a home into use; nothing is made on disk before the first layer. As :func:`open_driver`."""
        self._options = parse_options(options)
        home = os.path.abspath(home)
        check_usable(home)
        self._homes = Homes(home, [*map(os.path.abspath, read_only_homes), *self._options.image_homes])
        self._run_root = os.path.abspath(run_root)
        self._dependents = Dependents(home)
        self._mounting = Lock()

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Layers are staged, and mounted wherever the caller likes."""
        return Capabilities(stages_layers=True, max_depth=MAX_DEPTH)

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make an upper directory over the parent's."""
        self._make(layer_id, self._homes.find(parent.layer_id) if parent else None, options)

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Make a hidden child of the template: the same content at no cost, under the template's IDs."""
        if parent is not None:
            self._homes.find(parent.layer_id)
        self._make(layer_id, self._homes.find(template.layer_id), options)
        return template.idmap

    def _make(self, layer_id: str, below: LayerDirectory | None, options: CreateOptions) -> None:
        refuse_storage_options(options)
        owner = options.idmap.root() if options.idmap else (0, 0)
        with failing(f"create layer {layer_id}"):
            self._homes.make(layer_id, below, owner=owner)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename the layer from the working area into the home."""
        with failing(f"commit layer {layer_id}"):
            self._homes.commit(layer_id)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Rename the layer into the working area, if no other stands on it."""
        layer = self._homes.staged(layer_id) or self._homes.committed(layer_id)
        if layer is None:
            return
        if not layer.writable:
            raise StoreReadOnly(layer.home, f"layer {layer_id} lies in an additional store")
        with failing(f"remove layer {layer_id}"):
            if layer.home == self._homes.home and (users := self._dependents.of(layer.entry())):
                raise LayerInUse(layer_id, users)
            self._homes.put_aside(layer)
            self._dependents.removed(layer_id)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look into the homes."""
        return self._homes.committed(layer_id) is not None

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the home; layers of additional stores are theirs."""
        with failing("list layers"):
            return [layer_id for layer_id, _ in layer_ids(self._homes.home)]

    @hookimpl
    def reclaim(self) -> int:
        """Empty the working areas of this process and of dead ones."""
        with failing("delete removed layers"):
            return self._homes.area.reclaim()

    @hookimpl
    def cleanup(self) -> None:
        """Give up the working area, and unmount the home from itself."""
        with failing("give up the home"):
            self._homes.area.close()
            self._release_home()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount the chain of directories as one overlay."""
        layer = self._homes.find(layer_id)
        choices = usual_choices(parse_mount_options(options.options, self._options.mount))
        if options.read_only or not layer.writable:
            choices = choices.read_only()
        elif options.volatile:
            choices = choices.with_overlay("volatile")
        with failing(f"mount layer {layer_id}"):
            if options.target is not None:
                self._mount_at(options.target, layer, choices, options)
                return options.target
            return self._mount_shared(layer, choices, options)

    def _mount_shared(self, layer: LayerDirectory, choices: MountChoices, options: MountOptions) -> str:
        from hostspec.kernel.mounts import is_mountpoint

        target = layer.merged if layer.writable else f"{self._run_root}/merged/{layer.layer_id}"
        # Between looking and mounting no other thread may mount here too.
        with self._mounting:
            if not is_mountpoint(target):
                os.makedirs(target, 0o700, exist_ok=True)
                if not self._options.skip_mount_home:
                    bind_on_itself(self._homes.home)
                self._mount_at(target, layer, choices, options)
        return target

    def _mount_at(
        self, target: str, layer: LayerDirectory, choices: MountChoices, options: MountOptions
    ) -> None:
        from hostspec_overlay.mounting import mount_overlay
        from hostspec_overlay.planning import plan_mount

        plan = plan_mount(
            layer,
            self._homes.below(layer),
            choices,
            home=self._homes.home,
            spare=f"{self._run_root}/empty",
            idmap=options.idmap,
            label=options.mount_label,
        )
        mount_overlay(plan, target, self._options.mount_api)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Unmount ``path``, and the home from itself where that was the last mount in it."""
        from hostspec.kernel.mounts import unmount

        with failing(f"unmount layer {layer_id}"):
            try:
                unmount(path)
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOENT}:
                    raise
            if path.startswith(f"{self._homes.home}/"):
                self._release_home()

    def _release_home(self) -> None:
        if not self._options.skip_mount_home:
            with self._mounting:
                unbind_from_itself(self._homes.home)

    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Try it on a scratch overlay, once in a process."""
        from hostspec_overlay.probes import Outcome

        if not self._options.shifting:
            outcome = Outcome(works=False, reason="switched off by the option overlay.hostspec_shifting")
        elif os.environ.get(_DISABLE_SHIFTING) == "yes":
            outcome = Outcome(works=False, reason=f"switched off by {_DISABLE_SHIFTING} in the environment")
        elif not idmap:
            outcome = Outcome(works=True, reason="nothing to map")
        else:
            outcome = self._probes().mapped_lowers(idmap)
        return Shifting(possible=outcome.works, reason=outcome.reason, stored=StoredIds.MAPPED)

    def _probes(self) -> Probes:
        from hostspec_overlay.probes import Probes

        return Probes(self._homes.home, self._homes.scratch_place, self._options.mount_api)

    # Content

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change] | None:
        """Read them off the upper directory, where ``parent`` is what the layer stands on."""
        with failing(f"list the changes of layer {layer.layer_id}"):
            found = self._difference(layer, parent)
            return None if found is None or found.needs_mount() else _changes(found)

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO] | None:
        """Pack the upper directory, where ``parent`` is what the layer stands on."""
        with failing(f"diff layer {layer.layer_id}"):
            found = self._difference(layer, parent)
            if found is None or found.needs_mount() or found.has_stubs():
                return None
            from hostspec.archive.pack import pack

            return pack(found.layer.diff, _changes(found), idmap=layer.idmap)

    @hookimpl
    def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int | None:
        """Add up what ``changes`` names, where ``parent`` is what the layer stands on."""
        with failing(f"measure layer {layer.layer_id}"):
            found = self._difference(layer, parent)
            return None if found is None or found.needs_mount() else found.content_bytes()

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int | None:
        """Unpack into the upper directory, whiteouts in the kernel's form."""
        from hostspec.archive.unpack import unpack

        layer = self._homes.find_writable(layer_id)
        with failing(f"apply a diff to layer {layer_id}"):
            return unpack(
                stream,
                layer.diff,
                idmap=options.idmap,
                whiteouts=whiteout_form(),
                squash=options.squash or self._options.squash,
                force_mode=options.force_mode,
                progress=options.progress,
                lowers=self._homes.directories_below(layer),
            )

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Make the ownership pass."""
        layer = self._homes.find_writable(layer_id)
        if old == new:
            return Shifted(inodes=0, bytes_copied=0)
        from hostspec_overlay.shifting import OwnershipPass

        with failing(f"change the ID map of layer {layer_id}"):
            ownership_pass = OwnershipPass(
                layer=layer,
                lowers=self._homes.below(layer),
                choices=usual_choices(self._options.mount),
                mount_api=self._options.mount_api,
                new_place=self._homes.new_place,
                discard=self._homes.area.put_aside,
            )
            return ownership_pass.run(
                old, new, options._replace(squash=options.squash or self._options.squash)
            )

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Try out what this kernel and file system can do."""
        with failing("try out overlayfs"):
            return self._probes().report(usual_choices(self._options.mount))

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the layer's directories are, in the words of the Go driver."""
        layer = self._homes.find(layer_id)
        with failing(f"look at layer {layer_id}"):
            lowers = self._homes.directories_below(layer)
        facts = [("MergedDir", layer.merged), ("UpperDir", layer.diff), ("WorkDir", layer.work)]
        return [("LowerDir", ":".join(lowers)), *facts] if lowers else facts

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Measure the layer's own directory; what was copied up by reflink is shared with its lower."""
        layer = self._homes.find(layer_id)
        from hostspec.disk_usage import measure_tree

        with failing(f"measure layer {layer_id}"):
            return measure_tree(layer.path, blocks_are_shared=_can_share_blocks(layer.path))

    @hookimpl
    def dedup(self, layer_ids: Sequence[str], options: DedupOptions) -> int:
        """Share blocks among the layers' own directories, what is below them left out."""
        from hostspec.directory_layers.deduplication import share_equal_files

        if not _can_share_blocks(self._homes.home):
            reason = f"files at {self._homes.home} cannot share their blocks; xfs and btrfs can do that"
            raise OperationNotSupported(DRIVER, "dedup", reason)
        diffs = [self._homes.find_writable(each).diff for each in layer_ids]
        with failing("dedup"):
            trees = [tree for diff in diffs for tree in (diff, *numbered_diffs(diff))]
            return share_equal_files(trees, options.method)

    def _difference(self, layer: LayerRef, parent: LayerRef | None) -> Difference | None:
        from hostspec_overlay.content import difference

        return difference(self._homes, layer, parent)


def _can_share_blocks(directory: str) -> bool:
    from hostspec.kernel.reflink import supports_reflinks

    try:
        return supports_reflinks(directory)
    except OSError:
        return False  # in an additional store, where nothing can be tried


def _changes(difference: Difference) -> Iterator[Change]:
    with failing(f"list the changes of layer {difference.layer.layer_id}"):
        yield from difference.changes()
