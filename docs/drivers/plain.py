"""The graph driver ``plain``: each layer is a directory, and a whole copy of its parent.

The driver of the guide "Writing a driver". It has the required hooks, ``reclaim`` and ``close``; hostspec's
fallbacks do the rest.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from hostspec.errors import (
    Duplicate,
    InvalidRequest,
    OperationNotSupported,
    StoreReadOnly,
    Unknown,
    failing,
)
from hostspec.hookspecs import hookimpl
from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import A_MOMENT, bind, unmount
from hostspec.values import Capabilities, CreateOptions, LayerRef, MountOptions
from hostspec.working_area import WorkingArea

__all__ = ["PlainDriver", "open_driver"]


def open_driver(
    home: str,
    run_root: str,
    options: tuple[tuple[str, str], ...],
    read_only_homes: tuple[str, ...],
) -> PlainDriver:
    """Open the driver, which has no options; nothing is written before the first ``create``."""
    for key, _ in options:
        raise InvalidRequest(f"plain.{key}", "is no option of the driver plain")
    return PlainDriver(home, run_root, read_only_homes)


class PlainDriver:
    """A layer is the directory ``<home>/layers/<ID>``; what is not whole lies in the working area."""

    def __init__(self, home: str, run_root: str, read_only_homes: tuple[str, ...]) -> None:
        """Take note of the places."""
        del run_root  # nothing here is lost at a reboot
        self._layers = os.path.join(home, "layers")
        self._area = WorkingArea(home)
        self._places = (self._layers, *(os.path.join(other, "layers") for other in read_only_homes))

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Layers are whole trees, so that one pass copies them under another ID map."""
        return Capabilities(contract=1, layers_are_whole=True)

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Copy the parent beside its place; the rename makes the layer, whole."""
        if options.size is not None or options.inodes is not None or options.others:
            raise OperationNotSupported("plain", "storage options", "plain directories have no limits")
        place = self._own(layer_id)
        if os.path.lexists(place):
            raise Duplicate("ID", layer_id)
        source = None if parent is None else self._directory(parent.layer_id)
        with failing(f"create layer {layer_id}"):
            os.makedirs(self._layers, exist_ok=True)
            making = self._area.staged(layer_id)
            try:
                os.mkdir(making, 0o755)
                if source is None:
                    os.chmod(making, 0o755)  # noqa: S103 - the umask may have taken some of it
                    os.chown(making, *options.idmap.root())
                else:
                    _copy(source, making)
                os.rename(making, place)
            except BaseException:
                delete_tree(making)
                raise

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Take the layer's name away, in one step; its files go when nobody waits for it."""
        place = self._own(layer_id)
        if not os.path.lexists(place) and self.exists(layer_id):
            raise StoreReadOnly(self._directory(layer_id), "lies in an additional store")
        with failing(f"remove layer {layer_id}"), suppress(FileNotFoundError):
            self._area.put_aside(place)

    @hookimpl
    def reclaim(self) -> int:
        """Delete what ``remove`` put aside, and what processes that died were making."""
        with failing("reclaim"):
            return self._area.reclaim()

    @hookimpl
    def close(self) -> None:
        """Give up the working area, and its lock with it."""
        with failing("give up the working area"):
            self._area.close()

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the directory, in additional stores too."""
        self._own(layer_id)
        return any(os.path.isdir(os.path.join(place, layer_id)) for place in self._places)

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the directories."""
        return os.listdir(self._layers) if os.path.isdir(self._layers) else []

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Return the directory, or bind it to the caller's."""
        if unknown := set(options.options) - {"ro", "rw"}:
            raise InvalidRequest(f"mount option {min(unknown)!r}", "the driver plain knows only ro and rw")
        if options.idmap:
            raise OperationNotSupported("plain", "mount under an ID map", "supports_shifting says no")
        directory = self._directory(layer_id)
        if options.target is None:
            return directory
        with failing(f"mount layer {layer_id}"):
            bind(directory, options.target, read_only=options.read_only or "ro" in options.options)
        return options.target

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Take a bind down; the directory itself is not mounted."""
        with failing(f"unmount layer {layer_id}"):
            if is_mountpoint(path):
                unmount(path, patience=A_MOMENT)

    def _own(self, layer_id: str) -> str:
        """Return where a layer of this home lies, or would lie."""
        if layer_id in {"", ".", ".."} or "/" in layer_id:
            raise InvalidRequest(f"layer ID {layer_id!r}", "must be usable as a file name")
        return os.path.join(self._layers, layer_id)

    def _directory(self, layer_id: str) -> str:
        """Return where a layer lies, here or in an additional store."""
        self._own(layer_id)
        for place in self._places:
            directory = os.path.join(place, layer_id)
            if os.path.isdir(directory):
                return directory
        raise Unknown("layer", layer_id)


def _copy(source: str, target: str) -> None:
    command = ("cp", "--archive", "--reflink=auto", "--", f"{source}/.", target)
    copied = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if copied.returncode:
        raise OSError(copied.stderr.strip())
