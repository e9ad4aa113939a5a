"""The façade through which everyone uses a driver.

:class:`GraphDriver` holds one pluggy manager with two plugins: the driver, and the fallbacks,
which are tried last. It gives the hooks types, defaults and keyword arguments, refuses a driver
that does not fulfil the contract, and sees to it that no operation silently does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import BinaryIO, TypeVar, cast

from hostspec.acceptance import ANSWERS, manager_of
from hostspec.errors import DriverBroken
from hostspec.fallback import Fallback
from hostspec.hookspecs import GraphDriverSpec
from hostspec.idmap import IdMap
from hostspec.observers import Observer, Operation, observed
from hostspec.private_mounts import PrivateMounts
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
    TemplateCost,
)

__all__ = ["GraphDriver"]

Answer = TypeVar("Answer")


class GraphDriver:
    """A driver, opened at one home.

    Every method does what the hook of the same name is documented to do, by the driver or else by
    the fallback; see :class:`hostspec.hookspecs.GraphDriverSpec` for results, errors and locks.

    Attributes:
        name: The driver's name.
        home: Absolute path of the directory that holds its layers.
    """

    def __init__(
        self,
        name: str,
        implementation: object,
        *,
        home: str,
        run_root: str,
        masked: frozenset[str] = frozenset(),
        observers: Sequence[Observer] = (),
    ) -> None:
        """Take a driver object into use.

        Args:
            name: The driver's name, for messages.
            implementation: The object whose marked methods implement the hooks.
            home: Directory for its layers.
            run_root: Directory for what need not survive a reboot; private mounts are made below it.
            masked: Hooks to treat as not implemented, so that the fallbacks do the work.
            observers: Told of every operation.

        Raises:
            DriverBroken: It is no driver; see :func:`hostspec.acceptance.manager_of`.
        """
        self.name = name
        self.home = home
        self._run_root = run_root
        self._observers = tuple(observers)
        self._implementation = implementation
        self._manager = manager_of(name, implementation, masked)
        self._hooks = cast(GraphDriverSpec, self._manager.hook)
        self._fallback = Fallback(name, home, self._hooks, self.mounted)
        self._manager.register(self._fallback, "fallback")

    def __repr__(self) -> str:
        return f"<GraphDriver {self.name!r} at {self.home!r}>"

    def implements(self, hook: str) -> bool:
        """Tell whether the driver itself implements ``hook``; it may still decline a particular case."""
        callers = self._manager.get_hookcallers(self._implementation) or []
        return any(caller.name == hook for caller in callers)

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the driver can do here and now."""
        with self._observed("capabilities", ""):
            return self._answer("capabilities", self._hooks.capabilities())

    def template_cost(self, *, native: bool = True) -> TemplateCost:
        """Say what a copy of a template under another map costs for each file.

        Args:
            native: False for a copy by the fallback, even where the driver could.
        """
        return self._fallback.template_cost(native=native and self.implements("create_from_template"))

    # The life of a layer

    def create(
        self, layer_id: str, parent: LayerRef | None = None, options: CreateOptions = CreateOptions()
    ) -> None:
        """Make an empty difference on top of ``parent``."""
        with self._observed("create", layer_id):
            self._hooks.create(layer_id=layer_id, parent=parent, options=options)

    def create_from_template(
        self,
        layer_id: str,
        template: LayerRef,
        parent: LayerRef | None = None,
        options: CreateOptions = CreateOptions(),
        *,
        native: bool = True,
    ) -> IdMap:
        """Make a layer with the parent and the content of ``template``.

        Args:
            layer_id: ID of the new layer.
            template: The layer to be like.
            parent: The template's record parent.
            options: ``options.idmap`` is the map wanted in the end.
            native: False to have the fallback do it even where the driver could.

        Returns:
            The map that the new layer's files now carry; what is missing to the wanted one is made up
            with ``update_idmap``.
        """
        who = self._hooks if native else self._fallback
        with self._observed("create_from_template", layer_id):
            return self._answer(
                "create_from_template",
                who.create_from_template(
                    layer_id=layer_id, template=template, parent=parent, options=options
                ),
            )

    def seal(self, layer_id: str) -> None:
        """Do what takes long before ``commit``; nothing to do where the driver has no such work."""
        with self._observed("seal", layer_id):
            self._hooks.seal(layer_id=layer_id)

    def commit(self, layer_id: str) -> None:
        """Make a staged layer visible, whole; nothing to do where the driver does not stage."""
        with self._observed("commit", layer_id):
            self._hooks.commit(layer_id=layer_id)

    def remove(self, layer_id: str) -> None:
        """Remove a layer, or abandon a staged one."""
        with self._observed("remove", layer_id):
            self._hooks.remove(layer_id=layer_id)

    def exists(self, layer_id: str) -> bool:
        """Tell whether the driver has this layer, committed."""
        with self._observed("exists", layer_id):
            return self._answer("exists", self._hooks.exists(layer_id=layer_id))

    def list_layers(self) -> Sequence[str]:
        """Return the IDs of all committed layers, in any order."""
        with self._observed("list_layers", ""):
            return self._answer("list_layers", self._hooks.list_layers())

    def reclaim(self) -> int:
        """Delete what ``remove`` put aside and what dead processes left, private mounts included."""
        with self._observed("reclaim", ""):
            self._private_area.reclaim()
            return self._answer("reclaim", self._hooks.reclaim())

    # Mounts

    def mount(self, layer_id: str, options: MountOptions = MountOptions()) -> str:
        """Make a layer's whole tree visible, and return the directory."""
        with self._observed("mount", layer_id):
            return self._answer("mount", self._hooks.mount(layer_id=layer_id, options=options))

    def unmount(self, layer_id: str, path: str) -> None:
        """Take down the mount at ``path``."""
        with self._observed("unmount", layer_id):
            self._hooks.unmount(layer_id=layer_id, path=path)

    @contextmanager
    def mounted(self, layer_id: str, *, idmap: IdMap = IdMap(), read_only: bool = True) -> Iterator[str]:
        """Give a layer's whole tree for the time of a ``with`` block, not in the way of its other users.

        The mount is private where the driver can make one. Left behind by a process that was
        killed, it is taken down by the next ``reclaim`` of any process.

        Args:
            layer_id: The layer.
            idmap: Show it under this map; only where shifting is supported.
            read_only: Refuse writes, where the driver can.
        """
        private = self.capabilities.mounts_privately
        target = self._private_area.new_directory() if private else None
        try:
            path = self.mount(
                layer_id,
                MountOptions(
                    idmap=idmap,
                    target=target,
                    read_only=read_only and self.capabilities.read_only_mounts,
                ),
            )
            try:
                yield path
            finally:
                self.unmount(layer_id, path)
        finally:
            if target is not None:
                self._private_area.remove_directory(target)

    # Facts

    def status(self) -> Sequence[tuple[str, str]]:
        """Return facts about the driver, its file system and this kernel, for people."""
        with self._observed("status", ""):
            return self._answer("status", self._hooks.status())

    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]]:
        """Return facts about one layer, for people."""
        with self._observed("metadata", layer_id):
            return self._answer("metadata", self._hooks.metadata(layer_id=layer_id))

    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Return what a layer occupies."""
        with self._observed("disk_usage", layer_id):
            return self._answer("disk_usage", self._hooks.disk_usage(layer_id=layer_id))

    def supports_shifting(self, idmap: IdMap) -> Shifting:
        """Say whether layers can be mounted under ``idmap``."""
        with self._observed("supports_shifting", ""):
            return self._answer("supports_shifting", self._hooks.supports_shifting(idmap=idmap))

    def cleanup(self) -> None:
        """Take down what the driver itself mounted at its home, and our own private mounts, and close."""
        with self._observed("cleanup", ""):
            self._hooks.cleanup()
            self._hooks.close()
            self._private_area.close()

    def close(self) -> None:
        """Give up what this process has open at the home and for private mounts; the layers' mounts stay."""
        with self._observed("close", ""):
            self._hooks.close()
            self._private_area.close()

    # Content

    def changes(self, layer: LayerRef, parent: LayerRef | None = None) -> Iterator[Change]:
        """Yield how ``layer`` differs from ``parent``, sorted by path; errors come while iterating."""
        with self._observed("changes", layer.layer_id):
            yield from self._answer("changes", self._hooks.changes(layer=layer, parent=parent))

    @contextmanager
    def diff(self, layer: LayerRef, parent: LayerRef | None = None) -> Iterator[BinaryIO]:
        """Give the difference of ``layer`` to ``parent`` as an uncompressed OCI layer tar."""
        with (
            self._observed("diff", layer.layer_id),
            self._answer("diff", self._hooks.diff(layer=layer, parent=parent)) as stream,
        ):
            yield stream

    def diff_size(self, layer: LayerRef, parent: LayerRef | None = None) -> int:
        """Return the bytes of file content that ``diff`` would carry."""
        with self._observed("diff_size", layer.layer_id):
            return self._answer("diff_size", self._hooks.diff_size(layer=layer, parent=parent))

    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions = ApplyOptions()) -> int:
        """Unpack an uncompressed OCI layer tar into a layer, and return the bytes of its content."""
        with self._observed("apply_diff", layer_id):
            return self._answer(
                "apply_diff",
                self._hooks.apply_diff(layer_id=layer_id, stream=stream, options=options),
            )

    def update_idmap(
        self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions = ShiftOptions()
    ) -> Shifted:
        """Give every file of a layer's whole tree the IDs of ``new`` instead of ``old``."""
        with self._observed("update_idmap", layer_id):
            return self._answer(
                "update_idmap",
                self._hooks.update_idmap(layer_id=layer_id, old=old, new=new, options=options),
            )

    def dedup(self, layer_ids: Sequence[str], options: DedupOptions = DedupOptions()) -> int:
        """Let equal files of these layers share their blocks, and return the bytes saved."""
        with self._observed("dedup", ""):
            return self._answer("dedup", self._hooks.dedup(layer_ids=layer_ids, options=options))

    def _observed(self, hook: str, layer_id: str) -> AbstractContextManager[None]:
        return observed(self._observers, Operation(self.name, hook, layer_id))

    def _answer(self, hook: str, answer: Answer | None) -> Answer:
        """Pass on an answer of the right type; pluggy gives ``None`` for a hook that nobody answered."""
        if answer is None:
            raise DriverBroken(self.name, f"its hook {hook!r} answered nothing")
        wanted = ANSWERS[hook]
        if not isinstance(answer, wanted):
            kind = type(answer).__name__
            raise DriverBroken(self.name, f"its hook {hook!r} answered a {kind}, not a {wanted.__name__}")
        return answer

    @cached_property
    def _private_area(self) -> PrivateMounts:
        return PrivateMounts(self._run_root)
