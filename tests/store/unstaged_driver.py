"""A driver with nothing but the required hooks, which makes a layer visible as soon as it makes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from hostspec.errors import Duplicate, Unknown
from hostspec.hookspecs import hookimpl
from hostspec.treecopy import copy_tree
from hostspec.values import Capabilities, CreateOptions, LayerRef, MountOptions


class UnstagedDriver:
    """Layers as directories, each a whole tree."""

    def __init__(self, home: str) -> None:
        self._home = home

    @hookimpl
    def capabilities(self) -> Capabilities:
        return Capabilities(layers_are_whole=True, mounts_privately=False, read_only_mounts=False)

    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        path = self._path(layer_id)
        if os.path.exists(path):
            raise Duplicate("ID", layer_id)
        os.makedirs(path)
        if parent is not None:
            copy_tree(self._path(parent.layer_id), path)
        else:
            os.chown(path, *options.idmap.root())

    @hookimpl
    def remove(self, layer_id: str) -> None:
        shutil.rmtree(self._path(layer_id), ignore_errors=True)

    @hookimpl
    def exists(self, layer_id: str) -> bool:
        return os.path.isdir(self._path(layer_id))

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        return [name for name in os.listdir(self._home) if not name.endswith("dirs")]

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        del options
        if not os.path.isdir(self._path(layer_id)):
            raise Unknown("layer", layer_id)
        return self._path(layer_id)

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        pass

    def _path(self, layer_id: str) -> str:
        return os.path.join(self._home, layer_id)


def open_driver(
    home: str, run_root: str, options: tuple[tuple[str, str], ...], read_only_homes: tuple[str, ...]
) -> UnstagedDriver:
    del run_root, options, read_only_homes
    return UnstagedDriver(home)
