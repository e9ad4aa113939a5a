"""The contract between a graph driver and everything above it.

A driver is one object, made by the factory that its distribution names in the
entry-point group ``hostspec.drivers``; its methods marked with :data:`hookimpl`
implement the hooks of :class:`GraphDriverSpec`. Callers never call hooks: they use
:class:`hostspec.driver.GraphDriver`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

import pluggy

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
)

__all__ = ["CONTRACT_VERSION", "HOOKS", "PROJECT", "REQUIRED_HOOKS", "GraphDriverSpec", "hookimpl"]

PROJECT = "hostspec"
"""Name of the pluggy project, and first part of every entry-point group."""

CONTRACT_VERSION = 1
"""Version of the contract that this module states."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a driver's method as the implementation of the hook of the same name."""

REQUIRED_HOOKS = frozenset(
    {"capabilities", "create", "remove", "exists", "list_layers", "mount", "unmount"},
)
"""The hooks without which an object is no driver."""


class GraphDriverSpec:
    """What a graph driver does.

    Terms, used throughout:

    layer
        A tree of files with an ID. Seen by itself it is a *difference*; mounted, it is the
        whole tree: its parent's files with the difference applied.
    parent
        The layer on which a layer stands, or ``None`` for an empty start.
    template
        A layer whose content a new layer is to have, under another ID map.
    record parent
        The parent that the store records, and passes to hooks. For a layer made from a template
        it is the template's parent, whatever the driver built it on. On what it really built is
        the driver's secret: it shows in no listing, ``changes``, ``diff`` or size.
    mount
        A directory through which a layer's whole tree is seen. The *shared* mount is the one at
        the driver's own place; a *private* mount is one at a directory of the caller's.
    home
        The driver's own directory, which its factory gets; all its layers lie there. It may get more homes,
        of *additional stores*: their layers can be mounted, and be parents and templates; nothing is
        written there.
    ID map, container ID, host ID
        See :mod:`hostspec.idmap`. Files on disk carry host IDs; ``LayerRef.idmap`` says under
        which map. Streams (``diff``, ``apply_diff``) carry container IDs.

    Rules that hold for every hook:

    *Answers.* A hook described as "may decline" answers ``None`` for *not me, and I did nothing*;
    a driver that leaves it out declines always. The fallback then does the work.

    *Form.* A hook may take fewer arguments than are stated here, by the same names. Its call does the
    work: it is no generator or coroutine function, and none of the arguments stated here has a default
    in it, at which pluggy would leave the argument. A driver with such a hook is refused.

    *Errors.* Drivers raise only :class:`hostspec.errors.HostspecError` and its subclasses;
    an ``OSError`` becomes :class:`~hostspec.errors.DriverFailed`, with the ``OSError`` as its cause.

    *Locks.* Hooks are called from several threads and processes at once for different layers.
    For one layer the store serialises create, fill, update and remove. No hook may take a lock
    that outlives the call, and none waits for another layer. The store holds its layer lock during
    ``commit`` and ``remove``, and the lock of its mount counts during ``mount`` and ``unmount`` of shared
    mounts, so these are short. What takes long, filling, mapping, packing, measuring and deleting, is asked
    for without a lock, where layers are staged.

    *Staging.* With ``Capabilities.stages_layers``, a layer between ``create`` and ``commit`` belongs
    to the process that makes it: it lies in the driver's working area, ``list_layers`` and
    ``exists`` do not show it, the other hooks of that process take its ID, ``remove`` abandons it,
    and after the process dies the next opening clears it.
    """

    @hookspec(firstresult=True)
    def capabilities(self) -> Capabilities:  # type: ignore[empty-body]
        """Say what this driver can do here and now. Required.

        Returns:
            Facts that do not change while the driver is open.

        Raises:
            DriverUnavailable: The driver cannot be used at its home; nothing was written.
        """

    @hookspec(firstresult=True)
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make an empty difference on top of ``parent``. Required.

        Afterwards the layer shows the parent's files *as they are on disk*, whatever
        ``options.idmap`` says; where there is no parent, an empty root directory of mode 0755 that
        belongs to the container's root under ``options.idmap``.

        Args:
            layer_id: ID of the new layer; any string that is a file name.
            parent: The record parent, or ``None``.
            options: Owner of an empty root, quota, label. A limit that the driver cannot
                enforce is refused.

        Raises:
            Duplicate: The driver has such a layer.
            Unknown: The driver does not have the parent.
            OperationNotSupported: A limit or an option cannot be honoured.
            InvalidRequest: The ID is no file name; an option is unknown or malformed.
            DriverFailed: The operating system refused.

        After a failure nothing is left. Not repeatable. Called without a lock where the driver
        stages layers, else under the layer lock. The umask of the process makes no difference.
        """

    @hookspec(firstresult=True)
    def create_from_template(
        self,
        layer_id: str,
        template: LayerRef,
        parent: LayerRef | None,
        options: CreateOptions,
    ) -> IdMap | None:
        """Make a layer with the parent and the content of ``template``. May decline.

        Afterwards, with IDs seen as a container sees them, ``changes(new, template)`` is empty and
        ``changes(new, parent)`` equals ``changes(template, parent)``. To everything above the
        driver the new layer is one layer whose parent is ``parent``. The template is unchanged,
        and may be mounted or in use meanwhile.

        Args:
            layer_id: ID of the new layer.
            template: The layer to be like, and the map that its files carry.
            parent: The template's record parent, and the map that its files carry.
            options: As for ``create``, but ``options.idmap`` is the map that the caller wants in the end,
                and ``options.squash`` is for a driver that maps while it copies.

        Returns:
            The map that the new layer's files now carry: ``template.idmap`` from a driver that
            copies as it is, ``options.idmap`` from one that maps while it copies. The caller
            makes up any difference with ``update_idmap``. ``None`` to decline.

        Raises:
            Duplicate: The driver has a layer of that ID.
            Unknown: The driver does not have the template or the parent.
            OperationNotSupported, InvalidRequest: As for ``create``.
            IdNotMapped: The driver maps while copying, a file's ID is outside a map, and
                ``options.squash`` is not set.
            DriverFailed: The operating system refused.

        After a failure nothing is left. Not repeatable. Called as ``create`` is.
        """

    @hookspec(firstresult=True)
    def seal(self, layer_id: str) -> None:
        """Do what takes long before ``commit``. Not needed where nothing does, or layers are not staged.

        Called without a lock, once the layer is filled: an image is made, content is compressed or
        measured. The layer stays staged. It shows what it showed, and can be looked at and removed,
        but is not written to any more. Repeatable; where nobody has called it, ``commit`` does the work.

        Raises:
            Unknown: This process has staged no such layer.
            DriverFailed: The operating system refused; the layer is still staged, and as it was.
        """

    @hookspec(firstresult=True)
    def commit(self, layer_id: str) -> None:
        """Make a staged layer visible, whole. Not needed where layers are not staged.

        Afterwards ``exists`` and ``list_layers`` show it, in this and every other process.
        One short step (a rename), since the layer lock is held; the store has called ``seal`` before.

        Raises:
            Unknown: This process has staged no such layer.
            Duplicate: Another process made a layer of that ID meanwhile; ours is still staged.
            DriverFailed: The operating system refused; the layer is still staged.
        """

    @hookspec(firstresult=True)
    def remove(self, layer_id: str) -> None:
        """Remove a layer. Required.

        Afterwards ``exists`` denies it. Short, since the layer lock is held: what takes long is put
        aside for ``reclaim``. A staged layer is abandoned. What is still mounted is unmounted.
        An ID that is not known is no error, so the call may be repeated.

        Raises:
            LayerInUse: Other layers of this driver stand on it, hidden or not; has their IDs.
                Nothing was removed.
            StoreReadOnly: It lies in the home of an additional store; it is still there.
            DriverFailed: The operating system refused. The layer is either whole or gone.
        """

    @hookspec(firstresult=True)
    def exists(self, layer_id: str) -> bool:  # type: ignore[empty-body]
        """Tell whether the driver has this layer, committed, in its home or an additional store's. Required.

        For what can be no layer's ID the answer is no; ``InvalidRequest`` will do, too.
        """

    @hookspec(firstresult=True)
    def list_layers(self) -> Sequence[str]:  # type: ignore[empty-body]
        """Return the IDs of all committed layers of the driver's home, in any order. Required."""

    @hookspec(firstresult=True)
    def reclaim(self) -> int | None:
        """Delete what ``remove`` put aside and what dead processes left. May decline.

        Called without a lock. Repeatable, at any time, by several processes at once.

        Returns:
            Bytes freed, as far as they are known.

        Raises:
            DriverFailed: Something could not be deleted; the next call tries it again. All else was.
        """

    @hookspec(firstresult=True)
    def mount(self, layer_id: str, options: MountOptions) -> str:  # type: ignore[empty-body]
        """Make a layer's whole tree visible at a directory. Required.

        Without ``options.target``: the layer's one shared mount, at the driver's own place;
        repeating it returns the same path. With it: a mount of that caller alone, there; the
        layer's other mounts do not notice. A driver whose layers are plain directories may
        return its own directory as the shared mount, but for a shifted one. Drivers keep no counts.
        With ``options.idmap`` the layer is shown shifted; what is written there is written by IDs
        that this map gives, such as its root's.

        Args:
            layer_id: The layer, committed or staged by this process.
            options: Shift, target, read-only, label. A shared mount need not be read-only where it is asked
                to be; a private one must, by ``Capabilities.read_only_mounts``.

        Returns:
            The absolute path of the tree.

        Raises:
            Unknown: There is no such layer.
            InvalidRequest: A mount option is unknown or malformed.
            OperationNotSupported: This map, target or option cannot be had.
            DriverFailed: The operating system refused; nothing is mounted.
        """

    @hookspec(firstresult=True)
    def unmount(self, layer_id: str, path: str) -> None:
        """Take down the mount that ``mount`` returned as ``path``. Required.

        Repeatable: where nothing is mounted, nothing happens. Other mounts of the layer stay.

        Raises:
            DriverFailed: It is busy; it is still mounted.
        """

    @hookspec(firstresult=True)
    def status(self) -> Sequence[tuple[str, str]] | None:
        """Return facts about the driver, its file system and this kernel, for people. May decline.

        Each is a name and a value; a probe that failed has its reason in the value.
        """

    @hookspec(firstresult=True)
    def metadata(self, layer_id: str) -> Sequence[tuple[str, str]] | None:
        """Return facts about one layer, for people. May decline.

        Raises:
            Unknown: There is no such layer.
        """

    @hookspec(firstresult=True)
    def cleanup(self) -> None:
        """Take down what the driver itself mounted at its home. Nobody will call it again. Repeatable.

        Not needed where the layers' mounts are all that there is. ``close`` is called after it.

        Raises:
            DriverFailed: Something is busy, and still mounted; the rest was taken down.
        """

    @hookspec(firstresult=True)
    def close(self) -> None:
        """Give up what this process has open at the home. Not needed where nothing is kept open. Repeatable.

        Locks, descriptors, layers that it was making; mounts stay. Called when a store is closed; whatever
        is called later opens again what it needs.

        Raises:
            DriverFailed: Something could not be deleted; ``reclaim`` of any process tries it again.
        """

    @hookspec(firstresult=True)
    def disk_usage(self, layer_id: str) -> DiskUsage | None:
        """Return what a layer occupies. May decline; the fallback walks the mounted tree.

        That is what is kept for this layer and not for its parents, a file of several names counted once.
        The layer may be mounted, and written to meanwhile.

        Raises:
            Unknown: There is no such layer.
            DriverFailed: The operating system refused.
        """

    @hookspec(firstresult=True)
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change] | None:
        """Return how ``layer`` differs from ``parent``. May decline.

        Owners are compared as a container sees them. Sorted by path, so that a directory comes
        before what is in it. A deleted directory is one change; a directory in which something
        changed is a modification of it. The layer may be mounted, and written to meanwhile.

        Args:
            layer: The layer, and the map that its files carry. With ``layer.shifted`` its own files alone
                carry it: whoever looks at the whole tree mounts it under ``layer.idmap``.
            parent: With which to compare, ``None`` for with nothing; as ``layer``. A driver answers
                natively only where ``parent`` is the layer's parent in the driver, and else declines.

        Raises:
            Unknown: One of them is not known.
            DriverFailed: The operating system refused; from this call or a step of the iteration.
        """

    @hookspec(firstresult=True)
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO] | None:
        """Return the difference of ``layer`` to ``parent`` as an uncompressed OCI layer tar. May decline.

        Owners in it are container IDs. Deleted paths are whiteouts (``.wh.NAME``). Sockets are left out.
        Two calls on an unchanged layer give the same bytes.

        Args:
            layer: As for ``changes``.
            parent: As for ``changes``.

        Returns:
            A context manager of a readable binary stream; leaving it frees what it holds, mounts too,
            wherever the reader stopped.

        Raises:
            Unknown: One of them is not known.
            IdNotMapped: A file's owner is outside ``layer.idmap``; from this call or a read.
            DriverFailed: The operating system refused; from this call or a read.
        """

    @hookspec(firstresult=True)
    def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int | None:
        """Return the bytes that ``diff`` would carry, headers left out. May decline.

        They are the content of files and the targets of symbolic links, as the Go library counts them
        (archive.ChangesSize).

        Raises:
            Unknown: One of them is not known.
            DriverFailed: The operating system refused.
        """

    @hookspec(firstresult=True)
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int | None:
        """Unpack an uncompressed OCI layer tar into a layer. May decline.

        What the tar has takes the place of what the layer shows; its whiteouts delete that. Nothing outside
        the layer is touched, whatever the tar says, and whatever links the layers below have.

        Args:
            layer_id: The layer, not mounted by others.
            stream: The tar; it is read to its end, trailing zeros included. Not touched where
                the driver declines.
            options: The map from the tar's container IDs to host IDs on disk, squashing, modes, progress.

        Returns:
            Bytes of file content unpacked.

        Raises:
            Unknown: There is no such layer.
            InvalidArchive: The tar is broken or hostile.
            IdNotMapped: An owner in the tar is outside the map, and ``options.squash`` is not set.
            DriverFailed: The operating system refused.

        After a failure the layer has a part of the content; the caller removes it.
        """

    @hookspec(firstresult=True)
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted | None:
        """Give every file of a layer's whole tree the IDs of ``new`` instead of ``old``. May decline.

        Everything that carries an ID: owners, POSIX ACL entries, the root ID of version 3
        capabilities, the root directory. All else stays, times included. Afterwards ``changes``
        and ``diff`` against the parent are, in container IDs, what they were before.

        Args:
            layer_id: The layer, not mounted by others; the caller is filling it.
            old: The map that the files carry.
            new: The map that they will carry.
            options: Squashing, threads, progress.

        Returns:
            What was changed.

        Raises:
            Unknown: There is no such layer.
            IdNotMapped: An ID is outside one of the maps, and ``options.squash`` is not set.
            DriverFailed: The operating system refused.

        After a failure a part of the files is mapped; the caller removes the layer.
        """

    @hookspec(firstresult=True)
    def supports_shifting(self, idmap: IdMap) -> Shifting | None:
        """Say whether layers can be mounted under ``idmap``. May decline: they cannot.

        Asked for each container, so what takes long is tried once in a process. Where it is possible,
        ``mount`` takes ``idmap`` for a layer whose files are unmapped.

        Returns:
            The answer, and its reason in both cases.
        """

    @hookspec(firstresult=True)
    def dedup(self, layer_ids: Sequence[str], options: DedupOptions) -> int | None:
        """Let equal files of these layers share their blocks. May decline: not supported.

        The layers show what they showed; they may be mounted, and written to meanwhile. Repeatable.

        Returns:
            Bytes saved.

        Raises:
            Unknown: A layer is not known.
            InvalidRequest: The method is not known.
            DriverFailed: The operating system refused; a part may share its blocks.
        """


HOOKS = frozenset(name for name in vars(GraphDriverSpec) if not name.startswith("_"))
"""All hooks."""
