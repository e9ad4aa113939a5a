"""The hooks of the loopimage driver.

On disk a layer is the directory ``<home>/layers/ID`` with its image, ``image.ext4`` or ``image.xfs``, and
the directory ``merged`` for its shared mount. ``<home>/blank`` holds images of empty file systems, to be
cloned.

There are no ``changes``, ``diff``, ``apply_diff`` and ``update_idmap``: hostspec does all that by itself,
with the mounted file systems.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import NamedTuple

from hostspec.directory_layers import DirectoryLayers, prepare_root
from hostspec.errors import PrerequisitesMissing, StoreCorrupt, StoreReadOnly, failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount, in_user_namespace
from hostspec.kernel.fiemap import extents
from hostspec.kernel.filesystems import sync_filesystem
from hostspec.kernel.mountfds import move_mount
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import A_MOMENT, unmount, unmount_all
from hostspec.kernel.reflink import supports_reflinks
from hostspec.values import Capabilities, CreateOptions, DiskUsage, LayerRef, MountOptions
from hostspec.working_area import WorkingArea
from hostspec_loopimage.images import FILESYSTEMS, clone, grow, make_blank, mounted_image
from hostspec_loopimage.options import (
    DEFAULTS,
    DRIVER,
    Options,
    parse_options,
    refuse_mount_options,
    wanted_size,
)

__all__ = ["LoopimageDriver", "open_driver"]


def open_driver(
    home: str, run_root: str, options: tuple[tuple[str, str], ...], read_only_homes: tuple[str, ...]
) -> LoopimageDriver:
    """Open the driver at ``home``, without touching the disk; the factory that the entry point names.

    Args:
        home: Directory for its layers; need not exist.
        run_root: Directory for what need not survive a reboot.
        options: See :class:`hostspec_loopimage.options.Options`.
        read_only_homes: Homes in additional stores.

    Raises:
        InvalidRequest: An option is unknown, or its value is.
        PrerequisitesMissing: ``mkfs``, loop devices or the privilege to mount are missing.
    """
    chosen = parse_options(options, tuple(FILESYSTEMS))
    if not can_mount() or in_user_namespace():
        raise PrerequisitesMissing(
            DRIVER, "mounting images needs CAP_SYS_ADMIN outside of user namespaces: run as root"
        )
    program = FILESYSTEMS[chosen.filesystem][0]
    if shutil.which(program) is None:
        raise PrerequisitesMissing(DRIVER, f"{program} is missing; install e2fsprogs or xfsprogs")
    if not os.path.exists("/dev/loop-control"):
        raise PrerequisitesMissing(DRIVER, "there are no loop devices here (module 'loop')")
    return LoopimageDriver(os.path.abspath(home), os.path.abspath(run_root), read_only_homes, chosen)


class _Layer(NamedTuple):
    path: str
    filesystem: str

    @property
    def image(self) -> str:
        return f"{self.path}/image.{self.filesystem}"


class LoopimageDriver:
    """Layers as images, each on its own; a clone shares the blocks that neither has written since."""

    def __init__(
        self, home: str, run_root: str, read_only_homes: Sequence[str] = (), options: Options = DEFAULTS
    ) -> None:
        """Take a home into use, as :func:`open_driver`; absolute paths."""
        self._home = home
        self._run_root = run_root
        self._options = options
        self._area = WorkingArea(home)
        self._own = f"{home}/layers"
        self._layers = DirectoryLayers(self._own, self._area, [f"{each}/layers" for each in read_only_homes])
        self._mounting = Lock()

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Layers are staged, each stands on its own, and its image is as large as it may become."""
        return Capabilities(
            stages_layers=True,
            layers_are_whole=True,
            layers_are_filesystems=True,
            limits_size=True,
            template_copies_content=True,
        )

    # The life of a layer

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Clone the parent's image, or an empty one."""
        if parent is not None:
            self._clone(layer_id, self._find(parent.layer_id), options)
            return
        size = wanted_size(options, self._options.size, empty=True)
        with self._made(layer_id, self._options.filesystem) as layer:
            clone(self._blank(layer.filesystem, size), layer.image, layer.filesystem)
            with mounted_image(layer.image, layer.filesystem) as mount:
                prepare_root(f"/proc/self/fd/{mount}/.", options)

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Clone the template's image; its files keep their IDs, which the caller then changes."""
        if parent is not None:
            self._find(parent.layer_id)
        self._clone(layer_id, self._find(template.layer_id), options)
        return template.idmap

    def _clone(self, layer_id: str, original: _Layer, options: CreateOptions) -> None:
        present = os.stat(original.image).st_size
        size = wanted_size(options, present, empty=False)
        with self._made(layer_id, original.filesystem) as layer:
            clone(original.image, layer.image, layer.filesystem)
            if size > present:
                grow(layer.image, layer.filesystem, size)

    @contextmanager
    def _made(self, layer_id: str, filesystem: str) -> Iterator[_Layer]:
        """Make a staged layer's directory; after a failure in the block it is gone again."""
        with failing(f"create layer {layer_id}"):
            path = self._layers.new(layer_id)
            with self._layers.abandoned_on_failure(path):
                os.mkdir(path, 0o700)
                os.mkdir(f"{path}/merged", 0o700)
                yield _Layer(path, filesystem)

    def _blank(self, filesystem: str, size: int) -> str:
        """Return an image of an empty file system; made once for each size, in the working area."""
        blank = f"{self._home}/blank/{filesystem}-{size}"
        if not os.path.exists(blank):
            os.makedirs(os.path.dirname(blank), 0o700, exist_ok=True)
            making = f"{self._area.path}/blank-{os.urandom(8).hex()}"
            try:
                make_blank(making, filesystem, size)
                os.rename(making, blank)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(making)
                raise
        return blank

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it."""
        with failing(f"commit layer {layer_id}"):
            self._layers.commit(layer_id)

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Put a layer aside; clones stand on their own, so no other layer is ever in the way."""
        if not self._area.has(layer_id) and not self._layers.exists(layer_id):
            return
        layer = self._find(layer_id)
        if not self._is_own(layer):
            raise StoreReadOnly(os.path.dirname(layer.path), f"layer {layer_id} lies in an additional store")
        with failing(f"remove layer {layer_id}"):
            unmount_all(os.path.realpath(layer.path))
            self._layers.put_aside(layer.path)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's directory, in the read-only homes too."""
        return self._layers.exists(layer_id)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the home."""
        with failing("list layers"):
            return self._layers.names()

    @hookimpl
    def reclaim(self) -> int:
        """Delete what was put aside, here and by dead processes."""
        with failing("delete removed layers"):
            return self._area.reclaim()

    @hookimpl
    def close(self) -> None:
        """Give up the working area; nothing else stays between two calls."""
        with failing("give up the working area"):
            self._area.close()

    def _find(self, layer_id: str) -> _Layer:
        path = self._layers.tree(layer_id)
        for filesystem in FILESYSTEMS:
            layer = _Layer(path, filesystem)
            if os.path.exists(layer.image):
                return layer
        raise StoreCorrupt(path, "holds no image")

    def _is_own(self, layer: _Layer) -> bool:
        return self._area.has(os.path.basename(layer.path)) or os.path.dirname(layer.path) == self._own

    # Mounts

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount the image's file system; where it is mounted already, the same one once more."""
        refuse_mount_options(options)
        layer = self._find(layer_id)
        with failing(f"mount layer {layer_id}"):
            if options.target is not None:
                self._mount_at(options.target, layer, options)
                return options.target
            return self._mount_shared(layer, options)

    def _mount_shared(self, layer: _Layer, options: MountOptions) -> str:
        name = os.path.basename(layer.path)
        target = f"{layer.path}/merged" if self._is_own(layer) else f"{self._run_root}/merged/{name}"
        # Between looking and mounting no other thread may mount here too.
        with self._mounting:
            if not is_mountpoint(target):
                os.makedirs(target, 0o700, exist_ok=True)
                self._mount_at(target, layer, options)
        return target

    def _mount_at(self, target: str, layer: _Layer, options: MountOptions) -> None:
        read_only = options.read_only or "ro" in options.options
        with mounted_image(
            layer.image, layer.filesystem, read_only=read_only, untouched=not self._is_own(layer)
        ) as mount:
            move_mount(mount, target)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Unmount ``path``; with the last mount of an image its loop device goes."""
        with failing(f"unmount layer {layer_id}"):
            if is_mountpoint(path):
                unmount(path, patience=A_MOMENT)

    # Facts

    @hookimpl
    def status(self) -> Sequence[tuple[str, str]]:
        """Say what images are, and how they are cloned here."""
        facts = [
            ("File System of Layers", self._options.filesystem),
            ("Size of Layers", str(self._options.size)),
        ]
        if os.path.isdir(self._home):
            with failing(f"look at {self._home}"):
                reflinks = supports_reflinks(self._home)
            facts.append(
                ("Clones By", "reflink" if reflinks else "copying what is not a hole: no reflinks here")
            )
        return facts

    @hookimpl
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Say where the image lies."""
        return (("Image", self._find(layer_id).image),)

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Tell the image's blocks by their extents, and the inodes in it from its file system."""
        layer = self._find(layer_id)
        with failing(f"measure layer {layer_id}"):
            untouched = not self._is_own(layer)
            with mounted_image(layer.image, layer.filesystem, read_only=True, untouched=untouched) as mount:
                sync_filesystem(f"/proc/self/fd/{mount}/.")
                counts = os.statvfs(f"/proc/self/fd/{mount}/.")
            with open(layer.image, "rb") as image:
                found = list(extents(image.fileno()))
                size = os.fstat(image.fileno()).st_size
        return DiskUsage(
            exclusive_bytes=sum(each.length for each in found if not each.shared),
            shared_bytes=sum(each.length for each in found if each.shared),
            inodes=counts.f_files - counts.f_ffree,
            limit_bytes=size,
        )
