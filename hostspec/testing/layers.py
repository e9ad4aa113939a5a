"""Making layers as the store does: created, mapped, filled, committed.

What every caller of a driver owes it is done here, once: the difference between the map that a
layer came with and the one it is to have is made up with ``update_idmap``; a layer that was created
and could not be filled is removed. What fails in creating it, the driver itself must clear away.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hostspec.driver import GraphDriver
from hostspec.errors import LayerInUse
from hostspec.idmap import IdMap
from hostspec.testing.on_disk import Times, change_tree, make_tree, read_times, read_tree
from hostspec.testing.samples import BOTTOM, MIDDLE, TOP, TOP_RECREATES
from hostspec.testing.tree import Tree
from hostspec.values import ApplyOptions, Change, CreateOptions, LayerRef, ShiftOptions

__all__ = ["Chain", "Layers", "Made"]


class Made(NamedTuple):
    """A layer that a test has made."""

    layer: LayerRef
    """Its ID, and the map that its files carry."""
    tree: Tree
    """What it shows."""
    parent: Made | None
    """The layer below, as the store would record it."""

    @property
    def layer_id(self) -> str:
        """Its ID."""
        return self.layer.layer_id

    @property
    def idmap(self) -> IdMap:
        """The map that its files carry."""
        return self.layer.idmap


class Chain(NamedTuple):
    """Three layers on top of each other, each with files of its own."""

    bottom: Made
    middle: Made
    top: Made


class Layers:
    """Makes layers with one driver, and looks at them."""

    def __init__(self, driver: GraphDriver) -> None:
        """Use ``driver``."""
        self.driver = driver

    def make(
        self,
        layer_id: str,
        tree: Tree,
        parent: Made | None = None,
        *,
        idmap: IdMap | None = None,
        recreated: Collection[str] = (),
        read_only: bool = True,
    ) -> Made:
        """Make and commit a layer that shows ``tree``, writing it through a mount.

        Args:
            layer_id: Its ID.
            tree: What it is to show.
            parent: The layer below.
            idmap: Its map; that of its parent, if not given.
            recreated: Paths to delete first, so that what is made there is new.
            read_only: Made as an image's layer, or as a container's.
        """
        if idmap is None:
            idmap = parent.idmap if parent else IdMap()
        options = CreateOptions(idmap=idmap, read_only=read_only)
        self.driver.create(layer_id, parent.layer if parent else None, options)
        with self._removed_on_failure(layer_id):
            if parent is not None and parent.idmap != idmap:
                self.driver.update_idmap(layer_id, parent.idmap, idmap)
            with self.driver.mounted(layer_id, read_only=False) as root:
                if parent is None:
                    make_tree(root, tree, idmap)
                else:
                    change_tree(root, parent.tree, tree, idmap, recreated=recreated)
            self._commit(layer_id)
        return Made(LayerRef(layer_id, idmap), tree, parent)

    def apply(
        self,
        layer_id: str,
        layer: bytes,
        tree: Tree,
        parent: Made | None = None,
        *,
        idmap: IdMap | None = None,
    ) -> Made:
        """Make and commit a layer from a layer tar, which should show ``tree``."""
        if idmap is None:
            idmap = parent.idmap if parent else IdMap()
        options = CreateOptions(idmap=idmap, read_only=True)
        self.driver.create(layer_id, parent.layer if parent else None, options)
        with self._removed_on_failure(layer_id):
            if parent is not None and parent.idmap != idmap:
                self.driver.update_idmap(layer_id, parent.idmap, idmap)
            self.driver.apply_diff(layer_id, io.BytesIO(layer), ApplyOptions(idmap=idmap))
            self._commit(layer_id)
        return Made(LayerRef(layer_id, idmap), tree, parent)

    def copy(
        self,
        layer_id: str,
        template: Made,
        idmap: IdMap,
        *,
        read_only: bool = True,
        squash: bool = False,
        native: bool = True,
    ) -> Made:
        """Make and commit a layer like ``template`` under another map."""
        parent = template.parent.layer if template.parent else None
        options = CreateOptions(idmap=idmap, read_only=read_only, squash=squash)
        carried = self.driver.create_from_template(layer_id, template.layer, parent, options, native=native)
        with self._removed_on_failure(layer_id):
            if carried != idmap:
                self.driver.update_idmap(layer_id, carried, idmap, ShiftOptions(squash=squash))
            self._commit(layer_id)
        return Made(LayerRef(layer_id, idmap), template.tree, template.parent)

    def chain(
        self, *, parent_map: IdMap | None = None, template_map: IdMap | None = None, prefix: str = ""
    ) -> Chain:
        """Make the sample's three layers; the last one may have a map of its own."""
        below = parent_map if parent_map is not None else IdMap()
        bottom = self.make(f"{prefix}bottom", BOTTOM, idmap=below)
        middle = self.make(f"{prefix}middle", MIDDLE, bottom)
        top = self.make(
            f"{prefix}top",
            TOP,
            middle,
            idmap=template_map if template_map is not None else below,
            recreated=TOP_RECREATES,
        )
        return Chain(bottom, middle, top)

    def read(self, made: Made) -> Tree:
        """Return what a layer shows."""
        with self.driver.mounted(made.layer_id) as root:
            return read_tree(root, made.idmap)

    def times(self, made: Made) -> dict[str, Times]:
        """Return when each file of a layer was last changed."""
        with self.driver.mounted(made.layer_id) as root:
            return read_times(root)

    def check(self, made: Made) -> None:
        """Fail, naming each difference, unless a layer shows what it should.

        The root directory's time does not count: no change is made of it, so no diff need carry it.
        """
        __tracebackhide__ = True
        found = self.read(made)
        found.check(made.tree.with_root_time(found["/"].mtime_ns))

    def remove_or_say_who_uses(self, layer_id: str) -> tuple[str, ...]:
        """Remove a layer, or return the IDs of those for whose sake the driver refuses to."""
        try:
            self.driver.remove(layer_id)
        except LayerInUse as refusal:
            return refusal.users
        return ()

    def changes(self, made: Made, parent: Made | None) -> list[Change]:
        """Return the changes that the driver reports, without the root directory."""
        reported = self.driver.changes(made.layer, parent.layer if parent else None)
        return [change for change in reported if change.path != "/"]

    def diff(self, made: Made, parent: Made | None) -> bytes:
        """Return a whole diff."""
        with self.driver.diff(made.layer, parent.layer if parent else None) as stream:
            return stream.read()

    def _commit(self, layer_id: str) -> None:
        self.driver.seal(layer_id)
        self.driver.commit(layer_id)

    @contextmanager
    def _removed_on_failure(self, layer_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.driver.remove(layer_id)
            self.driver.reclaim()
            raise
