"""The store: what is open, and where. Its other methods are in :mod:`hostspec.store.methods`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hostspec.store.methods.containers import ContainerMethods
from hostspec.store.methods.id_maps import IdMapMethods
from hostspec.store.methods.images import ImageMethods
from hostspec.store.methods.layers import LayerMethods
from hostspec.store.methods.mounts import MountMethods
from hostspec.store.methods.objects import ObjectMethods
from hostspec.store.methods.upkeep import UpkeepMethods

if TYPE_CHECKING:
    from hostspec.driver import GraphDriver
    from hostspec.store.configuration.keys import Configuration
    from hostspec.store.configuration.policy import Policy
    from hostspec.store.graph_root import GraphRoot

__all__ = ["Store"]


class Store(
    LayerMethods,
    ImageMethods,
    ContainerMethods,
    IdMapMethods,
    MountMethods,
    ObjectMethods,
    UpkeepMethods,
):
    """One store, open; see :func:`hostspec.store.open_store`.

    Wherever a *reference* is asked for, an ID serves, a name, or the beginning of an ID that no other has.
    Used from several threads and, like the directory itself, by several processes at once.
    Errors that any method may raise, beside those that it names: ``StoreCorrupt`` where a file of the
    store cannot be understood, ``StoreReadOnly`` where something is to be written to a store that was
    opened for reading, and ``DriverUnavailable`` or ``DriverFailed`` from the driver.
    """

    def __init__(self, root: GraphRoot, *, configuration: Configuration | None = None) -> None:
        """Use an opened graph root.

        Args:
            root: The graph root.
            configuration: What the configuration files say, where they said which store to open.
        """
        self._root = root
        self.configuration = configuration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.root!r} of driver {self.driver_name!r}>"

    def close(self) -> None:
        """Give up at once what this process has open: locks, descriptors, the working area. Mounts stay.

        The store can still be used, and is then open again.
        """
        driver = self._root.driver_if_open
        if driver is None:
            return
        if not self._root.read_only:
            self._root.clear_up()
        driver.close()

    @property
    def root(self) -> str:
        """Absolute path of the graph root."""
        return self._root.layout.root

    @property
    def run_root(self) -> str:
        """Absolute path of the directory for what need not survive a reboot."""
        return self._root.layout.run_root

    @property
    def driver_name(self) -> str:
        """Name of the store's driver."""
        return self._root.layout.driver

    @property
    def driver_options(self) -> tuple[tuple[str, str], ...]:
        """The driver's options, names without its prefix."""
        return self._root.options

    @property
    def options(self) -> Sequence[str]:
        """The options of the driver and of the store, as ``DRIVER.KEY=VALUE`` and ``hostspec.KEY=VALUE``."""
        stores = [("imagestore", each) for each in self.additional_stores]
        sync = [("sync", self._root.sync)] if self._root.sync != "none" else []
        given = (*stores, *self._root.options, *sync)
        return (*(f"{self.driver_name}.{key}={value}" for key, value in given), *self.policy.as_options())

    @property
    def policy(self) -> Policy:
        """How containers get their ID maps, and how long unused copies stay: the store's own options."""
        return self._root.policy

    @property
    def image_store(self) -> str | None:
        """Absolute path of the graph root for images, where they have one of their own."""
        return self._root.layout.image_root or None

    @property
    def additional_stores(self) -> Sequence[str]:
        """Absolute paths of the graph roots whose images and layers are seen here, and never written."""
        return tuple(each.root for each in self._root.additional)

    @property
    def transient(self) -> bool:
        """Whether its containers need not survive a reboot."""
        return self._root.layout.transient

    @property
    def driver(self) -> GraphDriver:
        """The driver; opened when it is first needed."""
        return self._root.driver

    @property
    def read_only(self) -> bool:
        """Whether everything that writes is refused."""
        return self._root.read_only

    def status(self) -> Sequence[tuple[str, str]]:
        """Return the driver's facts about itself, its file system and this kernel, for people."""
        return self._root.driver.status()
