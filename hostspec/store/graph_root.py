"""An opened graph root: its layout, its tables, and its driver once somebody needs it."""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from hostspec.errors import Duplicate, InvalidRequest, StoreReadOnly
from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import Policy
from hostspec.store.format.layout import Layout
from hostspec.store.format.locking import LockFile, OccasionLocks
from hostspec.store.format.mount_counts import MountCounts
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.table_places import containers_of, images_of, layers_of
from hostspec.store.format.tables import Edit
from hostspec.store.refusals import refusals
from hostspec.store.reserve import Reserve
from hostspec.store.unsettled import Unsettled

if TYPE_CHECKING:  # importing pluggy and a driver costs more than listing a store
    from hostspec.driver import GraphDriver
    from hostspec.observers import Observer

__all__ = ["Edits", "GraphRoot", "Sync"]

Sync = Literal["none", "filesystem"]
"""What makes layers survive a power loss: nothing, or a sync of the file system before the record."""


class Edits(NamedTuple):
    """All tables while their locks are held alone."""

    layers: Edit[Layer]
    images: Edit[Image]
    containers: Edit[Container]


class GraphRoot:
    """What every operation of a store works on; used from several threads.

    Locks are taken in the Go library's order: storage, layers, images, containers, mount counts.

    Attributes:
        layout: Where everything lies.
        options: The driver's options, names without its prefix.
        read_only: Whether nothing may be written.
        sync: What makes layer data survive a power loss.
        additional: Where the additional stores are, whose images and layers are seen and never written.
        idmap: The map of layers and containers for which none is named.
        ignore_volatile: Whether volatile containers are mounted like any other.
        policy: How containers get their ID maps.
        option_sources: The files that say something of the driver's options, by ``DRIVER.NAME``.
        layers: The layers' records.
        images: The images' records.
        containers: The containers' records.
        mounts: How often each layer is mounted.
        unsettled: Notes of steps that take more than one file.
        occasions: Locks for work that only one may do at a time, and that takes long.
        reserve: Room for removals on a full file system.
    """

    def __init__(  # noqa: PLR0913 - keywords that few callers need
        self,
        layout: Layout,
        *,
        options: Sequence[tuple[str, str]] = (),
        read_only: bool = False,
        sync: Sync = "none",
        additional: Sequence[str] = (),
        idmap: IdMap = IdMap(),
        ignore_volatile: bool = False,
        policy: Policy = Policy(),
        option_sources: Mapping[str, str] = MappingProxyType({}),
        observers: "Sequence[Observer]" = (),
    ) -> None:
        """Name the places; nothing is read or made yet."""
        self.layout = layout
        self.additional = tuple(Layout(each, layout.run_root, layout.driver) for each in additional)
        self.idmap = idmap
        self.ignore_volatile = ignore_volatile
        self.policy = policy
        self.option_sources = option_sources
        self.options = tuple(options)
        self.read_only = read_only
        self.sync: Sync = sync
        self.layers = layers_of(layout, self.additional, read_only=read_only)
        self.images = images_of(layout, self.additional, read_only=read_only)
        self.containers = containers_of(layout, read_only=read_only)
        self._storage_lock = LockFile(os.path.join(layout.root, "storage.lock"), read_only=read_only)
        self.mounts = MountCounts(layout.mounts, read_only=read_only)
        self.unsettled = Unsettled(os.path.join(layout.own, "unsettled"))
        self.occasions = OccasionLocks(layout.locks)
        self.reserve = Reserve(dict.fromkeys((layout.layers, layout.image_layers)))
        self._observers = tuple(observers)
        self._driver: GraphDriver | None = None
        self._begin_anew()
        _roots.add(self)

    @property
    def driver(self) -> "GraphDriver":
        """The driver; see :meth:`open_driver`."""
        return self._driver or self.open_driver()

    @property
    def driver_if_open(self) -> "GraphDriver | None":
        """The driver, if anything has needed it."""
        return self._driver

    def open_driver(self) -> "GraphDriver":
        """Open the driver, unless it is open.

        Raises:
            DriverUnavailable: It cannot be used here; the reason is in the error.
            InvalidRequest: It does not know an option.
        """
        with self._opening:
            if self._driver is None:
                try:
                    self._driver = self._opened_driver()
                except InvalidRequest as error:
                    option = error.subject.removeprefix("option ").partition("=")[0]
                    if option in self.option_sources:
                        raise InvalidRequest(self.option_sources[option], str(error)) from error
                    raise
            return self._driver

    @contextmanager
    def editing(self, *, with_driver: bool = True) -> Iterator[Edits]:
        """Hold the locks of all tables alone, for one short step.

        Args:
            with_driver: Open the driver first, since that may take a while: it clears up after the dead.

        Raises:
            StoreReadOnly: The store was opened for reading.
            StoreCorrupt: A file cannot be understood.
        """
        self.refuse_if_read_only()
        if with_driver:
            self.open_driver()
        with (
            self.layers.writing() as layers,
            self.images.writing() as images,
            self.containers.writing() as containers,
        ):
            yield Edits(layers, images, containers)

    @contextmanager
    def making(self, layer_id: str) -> Iterator[None]:
        """Keep the other threads of this process from making a layer of the same ID.

        Raises:
            Duplicate: One of them is at it.
        """
        with self._in_making_lock:
            if layer_id in self._in_making:
                raise Duplicate("ID", layer_id)
            self._in_making.add(layer_id)
        try:
            yield
        finally:
            self._in_making.discard(layer_id)

    def sync_data(self) -> None:
        """Make the layers' data survive a power loss, where that is wanted."""
        if self.sync == "filesystem":
            from hostspec.kernel.filesystems import sync_filesystem  # noqa: PLC0415 - loads ctypes

            for home in dict.fromkeys((self.layout.home, self.layout.image_home)):
                sync_filesystem(home)

    def is_making(self, layer_id: str) -> bool:
        """Tell whether a thread of this process makes a layer of that ID."""
        return layer_id in self._in_making

    def clear_up(self) -> None:
        """Delete what was removed, and what dead processes left; holds no lock."""
        self._clear_up(self.driver)

    def make_room(self) -> None:
        """Give the room that is kept for removals away where a full file system needs it for one."""
        self.refuse_if_read_only()
        self.open_driver()  # which takes back what was given away
        self.reserve.release()

    def clean_up_driver(self) -> None:
        """Have the driver take down what it mounted at its home, and others look for it again."""
        with self._storage_lock.exclusive() as held:
            self.driver.cleanup()
            with refusals("write", self._storage_lock.path):
                held.record_write()

    def refuse_if_read_only(self) -> None:
        """Raise StoreReadOnly if the store was opened for reading."""
        if self.read_only:
            raise StoreReadOnly(self.layout.root)

    def _begin_anew(self) -> None:
        """Know of no other thread: a forked child has none of those that its parent had."""
        self._opening = threading.Lock()
        self._in_making: set[str] = set()
        self._in_making_lock = threading.Lock()

    def _opened_driver(self) -> "GraphDriver":
        from hostspec.plugins import open_driver  # noqa: PLC0415 - listing records needs no driver

        layout = self.layout
        additional = [each.home for each in self.additional]
        if layout.image_root:
            from hostspec.store.split_driver import open_split_driver  # noqa: PLC0415 - few stores have one

            driver = open_split_driver(
                layout, self.options, read_only_homes=additional, observers=self._observers
            )
        else:
            driver = open_driver(
                layout.driver,
                home=layout.home,
                run_root=layout.driver_run_root,
                options=self.options,
                read_only_homes=additional,
                observers=self._observers,
            )
        if not self.read_only:
            for home in dict.fromkeys((layout.home, layout.image_home)):
                with refusals("write", home):
                    os.makedirs(home, 0o700, exist_ok=True)
            self._clear_up(driver)
        return driver

    def _clear_up(self, driver: "GraphDriver") -> None:
        driver.reclaim()
        self.occasions.sweep()
        self.reserve.fill()


def _begin_all_anew() -> None:
    for root in _roots:
        root._begin_anew()  # noqa: SLF001


_roots: weakref.WeakSet[GraphRoot] = weakref.WeakSet()
os.register_at_fork(after_in_child=_begin_all_anew)
