"""The driver object: the hooks, each in a few lines on top of layout, mounting and the ownership pass.

A layer is made in the working area of its process and renamed into the home by ``commit``. A copy of a
template is a *hidden child*: a layer on top of the template that differs from it in nothing yet, and
in its IDs after ``update_idmap``. Nothing but the ``lower`` file tells.
"""

# Modules that call the kernel or handle archives are imported by the hooks that use them: most commands mount
# nothing, and every command opens a driver.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from hostspec.errors import LayerInUse, OperationNotSupported, StoreReadOnly, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
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
from hostspec_overlay.environment import check_usable, whiteout_form
from hostspec_overlay.homes import Homes
from hostspec_overlay.layout import MAX_DEPTH, SHARED_DEPTH, LayerDirectory, layer_ids, numbered_diffs
from hostspec_overlay.limiting import LayerLimits
from hostspec_overlay.mounts import Mounts
from hostspec_overlay.noted_program import check_mount_program, noted_mount_program
from hostspec_overlay.options import (
    DRIVER,
    OverlayOptions,
    parse_options,
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
        home = os.path.abspath(home)
        self._options = _with_program(parse_options(options), home)
        self._backing = check_usable(home, by_program=bool(self._options.mount_program))
        self._homes = Homes(home, [*map(os.path.abspath, read_only_homes), *self._options.image_homes])
        self._run_root = os.path.abspath(run_root)
        self._dependents = Dependents(home)
        self._mounts = Mounts(self._homes, self._run_root, self._options)
        self._limits = LayerLimits(home, self._run_root, self._backing, self._options.limits)
        self._limits.refuse_unless_enforced()

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Layers are staged, mounted wherever one likes, and limited where there are project quotas."""
        return Capabilities(
            stages_layers=True,
            limits_size=self._limits.enforced,
            limits_inodes=self._limits.enforced,
            max_depth=MAX_DEPTH,
            shared_depth=SHARED_DEPTH,
            template_copies_content=bool(self._options.mount_program)
            or self._mounts.choices().overlay_option("metacopy") != "on",
        )

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
        limit = self._limits.for_new_layer(options)
        owner = options.idmap.root() if options.idmap else (0, 0)
        with failing(f"create layer {layer_id}"):
            self._homes.make(layer_id, below, owner=owner, mask=self._options.force_mask, limit=limit)

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
            self._mounts.release_home()

    @hookimpl
    def close(self) -> None:
        """Give up the working area."""
        with failing("give up the working area"):
            self._homes.area.close()

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount the chain of directories as one overlay."""
        layer = self._homes.find(layer_id)
        with failing(f"mount layer {layer_id}"):
            return self._mounts.mount(layer, options)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Unmount ``path``, and the home from itself where that was the last mount in it."""
        with failing(f"unmount layer {layer_id}"):
            self._mounts.unmount(path)

    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Try it on a scratch overlay, once in a process."""
        from hostspec_overlay.probes import Outcome

        if not self._options.shifting:
            outcome = Outcome(works=False, reason="switched off by the option overlay.hostspec_shifting")
        elif self._options.mount_program:
            outcome = Outcome(works=True, reason=f"{self._options.mount_program} maps IDs")
        elif os.environ.get(_DISABLE_SHIFTING) == "yes":
            outcome = Outcome(works=False, reason=f"switched off by {_DISABLE_SHIFTING} in the environment")
        elif not idmap:
            outcome = Outcome(works=True, reason="nothing to map")
        else:
            outcome = self._probes().mapped_lowers(idmap)
        # A mount program maps in both directions, the kernel's overlayfs does not map the upper directory.
        stored = StoredIds.UNMAPPED if self._options.mount_program else StoredIds.MAPPED
        return Shifting(possible=outcome.works, reason=outcome.reason, stored=stored, shared_with_go=True)

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
            if found is None or found.needs_mount(with_content=True):
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
                force_mode=self._options.force_mask if options.force_mode is None else options.force_mode,
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
        from hostspec_overlay.stubs import follow_stubs

        with failing(f"change the ID map of layer {layer_id}"):
            lowers, choices, program = (
                self._homes.below(layer),
                self._mounts.choices(),
                self._mounts.program(),
            )
            ownership_pass = OwnershipPass(
                layer=layer,
                lowers=lowers,
                choices=choices if program is not None else follow_stubs(choices, lowers),
                mount_api=self._options.mount_api,
                program=program,
                direct=self._options.direct_pass,
                volatile=self._options.volatile_pass,
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
        if self._options.mount_program:
            return self._program_status()
        with failing("try out overlayfs"):
            return self._probes().report(self._mounts.choices())

    def _program_status(self) -> Sequence[tuple[str, str]]:
        mask = self._options.force_mask
        return [
            ("Backing Filesystem", self._backing.filesystem),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Mount program", self._options.mount_program),
            ("Mount options", str(self._mounts.choices()) or "none"),
            ("Project quota", "yes" if self._limits.enforced else "no"),
            ("Forced permissions", "none" if mask is None else f"{mask:04o}"),
        ]

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
            found = measure_tree(layer.path, blocks_are_shared=_can_share_blocks(layer.path))
            return self._limits.added_to(found, layer)

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
        if self._options.mount_program:
            return None  # only the program can read what it wrote
        from hostspec_overlay.content import difference

        return difference(self._homes, layer, parent)


def _can_share_blocks(directory: str) -> bool:
    from hostspec.kernel.reflink import supports_reflinks

    try:
        return supports_reflinks(directory)
    except OSError:
        return False  # in an additional store, where nothing can be tried


def _with_program(options: OverlayOptions, home: str) -> OverlayOptions:
    """Settle which program mounts, if one does: the user's, or the one that wrote this store."""
    program = options.mount_program
    if program:
        check_mount_program(DRIVER, program)
        return options
    return options._replace(mount_program=noted_mount_program(DRIVER, home))


def _changes(difference: Difference) -> Iterator[Change]:
    with failing(f"list the changes of layer {difference.layer.layer_id}"):
        yield from difference.changes()
