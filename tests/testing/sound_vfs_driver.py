"""The vfs driver, which mounts, stages and shifts, as what drivers with a fault derive from."""

# The hooks of a driver have the arguments that they have.

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from hostspec.archive.changes import compare_trees
from hostspec.archive.pack import pack
from hostspec.errors import InvalidRequest
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.values import (
    Capabilities,
    Change,
    CreateOptions,
    LayerRef,
)
from hostspec_vfs.driver import VfsDriver

__all__ = ["SoundVfsDriver"]


class SoundVfsDriver(VfsDriver):
    """The vfs driver, with native hooks in which something can be wrong."""

    def __init__(
        self,
        home: str,
        run_root: str,
        options: tuple[tuple[str, str], ...] = (),
        read_only_homes: tuple[str, ...] = (),
    ) -> None:
        for name, _ in options:
            raise InvalidRequest(f"vfs.{name}", "is no option of this driver")
        super().__init__(home, run_root, read_only_homes)

    @hookimpl
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(template_copies_content=True)

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        if parent is not None:
            self.layers.tree(parent.layer_id)  # an unknown one is refused
        self.create(layer_id, template, options)
        return template.idmap

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        return compare_trees(
            self.layers.tree(layer.layer_id),
            None if parent is None else self.layers.tree(parent.layer_id),
            new_map=layer.idmap,
            old_map=IdMap() if parent is None else parent.idmap,
        )

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        return pack(self.layers.tree(layer.layer_id), self.changes(layer, parent), idmap=layer.idmap)

    def _paths(self, layer_id: str) -> Iterator[str]:
        """Yield every path of a layer that is no directory."""
        for directory, directories, names in os.walk(self.layers.tree(layer_id)):
            links = (name for name in directories if os.path.islink(f"{directory}/{name}"))
            yield from (f"{directory}/{name}" for name in (*names, *links))
