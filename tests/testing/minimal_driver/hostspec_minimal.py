"""The least that a graph driver can be: the required hooks, on plain directories copied by cp(1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hostspec.errors import DriverFailed, Duplicate, InvalidRequest, OperationNotSupported, Unknown
from hostspec.hookspecs import hookimpl
from hostspec.values import Capabilities, CreateOptions, LayerRef, MountOptions


class MinimalDriver:
    """A layer is the directory ``<home>/layers/<ID>``; while it is made, it lies in ``<home>/unfinished``."""

    def __init__(
        self,
        home: str,
        run_root: str,  # noqa: ARG002 - nothing here is lost at a reboot
        options: tuple[tuple[str, str], ...],
        read_only_homes: tuple[str, ...],  # noqa: ARG002 - an additional store is more than the least
    ) -> None:
        """Open the driver at ``home``, and write nothing there yet."""
        for name, _ in options:
            raise InvalidRequest(f"minimal.{name}", "is no option: the minimal driver has none")
        self._layers = os.path.join(home, "layers")
        self._unfinished = os.path.join(home, "unfinished")

    @hookimpl
    def capabilities(self) -> Capabilities:
        """Say what plain directories cannot do."""
        return Capabilities(mounts_privately=False, read_only_mounts=False)

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Copy the parent's directory, or make an empty one, and give it its name when it is complete."""
        if options.size is not None or options.inodes is not None or options.others:
            raise OperationNotSupported("minimal", "storage options", "plain directories have none")
        if layer_id in {"", ".", ".."} or "/" in layer_id:
            raise InvalidRequest(f"layer ID {layer_id!r}", "must be usable as a file name")
        if self.exists(layer_id):
            raise Duplicate("ID", layer_id)
        source = None if parent is None else self._directory(parent.layer_id)
        with _failing(f"create layer {layer_id}"):
            os.makedirs(self._layers, exist_ok=True)
            os.makedirs(self._unfinished, exist_ok=True)
            making = self._clear_unfinished(layer_id)
            try:
                os.mkdir(making)
                os.chmod(making, 0o755)
                if source is not None:
                    _copy(source, making)
                elif options.idmap or os.geteuid() == 0:  # else the files of an ordinary user stay their own
                    os.chown(making, *options.idmap.root())
                os.rename(making, os.path.join(self._layers, layer_id))
            except BaseException:
                shutil.rmtree(making, ignore_errors=True)
                raise

    @hookimpl
    def remove(self, layer_id: str) -> None:
        """Take the layer's name away, and then its files."""
        with _failing(f"remove layer {layer_id}"):
            going = self._clear_unfinished(layer_id)
            if self.exists(layer_id):
                os.rename(os.path.join(self._layers, layer_id), going)
                shutil.rmtree(going)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the layer's directory."""
        return layer_id in self.list_layers()

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        """List the directories."""
        return os.listdir(self._layers) if os.path.isdir(self._layers) else []

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Return the layer's own directory."""
        if options.options:
            raise InvalidRequest(f"mount options {options.options}", "there is nothing to give options to")
        if options.idmap or options.target or options.read_only:
            raise OperationNotSupported("minimal", "mount options", "the mount is the layer's own directory")
        return self._directory(layer_id)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        """Do nothing: a directory is not mounted."""

    def _clear_unfinished(self, layer_id: str) -> str:
        """Delete what a process left that died while it made or removed this layer; return the place."""
        place = os.path.join(self._unfinished, layer_id)
        if os.path.isdir(self._unfinished) and layer_id in os.listdir(self._unfinished):
            shutil.rmtree(place)
        return place

    def _directory(self, layer_id: str) -> str:
        if not self.exists(layer_id):
            raise Unknown("layer", layer_id)
        return os.path.join(self._layers, layer_id)


def _copy(source: str, target: str) -> None:
    copied = subprocess.run(
        ["cp", "-a", "--", f"{source}/.", target],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if copied.returncode:
        raise OSError(copied.stderr.strip())


@contextmanager
def _failing(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriverFailed(operation, error) from error
