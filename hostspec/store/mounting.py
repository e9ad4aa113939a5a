"""Mounting, counted for all programs that use the store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from hostspec.errors import DriverFailed, HostspecError, InUse, InvalidRequest, StoreReadOnly, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.store.format.mount_counts import MountCount, MountCountsEdit
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.graph_root import GraphRoot
from hostspec.store.unsettled import MOUNT, UNMOUNT, Note
from hostspec.values import MountOptions, StoredIds

__all__ = [
    "mount",
    "mount_count",
    "settle",
    "shift_of",
    "shift_on_disk",
    "take_all_down",
    "target_of",
    "unmount",
    "unmount_wholly",
]


class Target(NamedTuple):
    """What a reference to be mounted stands for."""

    layer: Layer
    """The layer to mount."""
    container: Container | None
    """The container whose layer it is."""
    image: Image | None
    """The image whose files it shows, unmapped."""


def target_of(root: GraphRoot, layers: Snapshot[Layer], reference: str) -> Target:
    """Return what is to be mounted for an ID or name of a container, a layer or an image.

    Raises:
        Unknown: There is nothing of that ID or name.
    """
    container = root.containers.read().find(reference)
    if container is not None:
        return Target(layers.get(container.layer), container, None)
    layer = layers.find(reference)
    if layer is not None:
        owner = next((each for each in root.containers.read() if each.layer == layer.id), None)
        return Target(layer, owner, None)
    image = root.images.read().find(reference)
    if image is None:
        raise Unknown("layer", reference)
    tops = [layer for each in image.top_layers if (layer := layers.with_id(each)) is not None]
    unmapped = next((layer for layer in tops if not layer.idmap), None)
    if unmapped is None:
        reason = "has no layer whose files carry container IDs; mount one of its layers instead"
        raise InvalidRequest(f"image {image.id}", reason)
    return Target(unmapped, None, image)


def shift_of(layer: Layer, container: Container | None) -> IdMap:
    """Return the map under which a mount must show a layer's files.

    It shifts exactly when the container's record has a map and its layer's record has none.
    """
    return container.idmap if container is not None and not layer.idmap else IdMap()


def shift_on_disk(root: GraphRoot, layer: Layer, container: Container | None) -> IdMap:
    """Return the map that files carry which were written into a layer while it was mounted so."""
    shift = shift_of(layer, container)
    mapped = shift and root.driver.supports_shifting(shift).stored is StoredIds.MAPPED
    return shift if mapped else IdMap()


def mount(
    root: GraphRoot,
    reference: str,
    *,
    read_only: bool = False,
    mount_label: str = "",
    mount_options: Sequence[str] = (),
) -> str:
    """Mount a container, layer or image; see :meth:`hostspec.store.Store.mount`."""
    root.refuse_if_read_only()
    root.open_driver()
    # The layers stay locked for reading, so that nobody removes the layer meanwhile.
    with root.layers.reading() as layers, root.mounts.writing() as counts:
        target = target_of(root, layers, reference)
        _settle_all(root, counts, target.layer.id)
        container = target.container
        if target.image is None and not read_only:
            layers.refuse_read_only(target.layer.id)
        options = MountOptions(
            idmap=shift_of(target.layer, container),
            read_only=read_only or target.image is not None,
            volatile=container is not None and container.volatile and not root.ignore_volatile,
            mount_label=mount_label or target.layer.mount_label,
            options=(*(container.mount_options if container is not None else ()), *mount_options),
        )
        # Always asked of the driver, which answers with the mount that is there: a count without a
        # mount in this mount namespace means that it has to be mounted here again.
        with _noted(root, Note(MOUNT, target.layer.id)):
            path = os.path.normpath(root.driver.mount(target.layer.id, options))
        before = counts.get(target.layer.id)
        try:
            counts.put(MountCount(target.layer.id, path, (before.users if before else 0) + 1))
        except HostspecError:
            if before is None:  # else others would never take it down
                root.driver.unmount(target.layer.id, path)
            raise
        root.unsettled.forget(Note(MOUNT, target.layer.id))
    return path


def unmount(root: GraphRoot, reference: str, *, force: bool = False) -> bool:
    """Give a mount back; see :meth:`hostspec.store.Store.unmount`."""
    root.refuse_if_read_only()
    root.open_driver()
    with root.layers.reading() as layers, root.mounts.writing() as counts:
        layer = target_of(root, layers, reference).layer
        _settle_all(root, counts, layer.id)
        before = counts.get(layer.id)
        if before is None and not force:
            raise InvalidRequest(f"layer {layer.id}", "is not mounted")
        if before is not None and before.users > 1 and not force:
            counts.put(before._replace(users=before.users - 1))
            return False
        _take_down(root, counts, layer.id)
    return True


def unmount_wholly(root: GraphRoot, counts: MountCountsEdit, layer_id: str) -> None:
    """Take a layer's mount down, whoever still counts on it, because the layer is to be removed.

    Raises:
        DriverFailed: It is busy; it is still mounted.
    """
    if counts.get(layer_id) is not None:
        _take_down(root, counts, layer_id)


def mount_count(root: GraphRoot, reference: str) -> int:
    """Return how many users a mount has; see :meth:`hostspec.store.Store.mounted`."""
    layer = target_of(root, root.layers.read(), reference).layer
    count = root.mounts.read().get(layer.id)
    return count.users if count is not None else 0


def take_all_down(root: GraphRoot, *, force: bool) -> tuple[str, ...]:
    """Take down every counted mount; see :meth:`hostspec.store.Store.shutdown`."""
    root.refuse_if_read_only()
    root.open_driver()
    with root.layers.reading(), root.mounts.writing() as counts:
        present = counts.all()
        if present and not force:
            users = [each.path for each in present]
            raise InUse("store", root.layout.root, users, "has mounts in use at")
        left = []
        for each in present:
            try:
                _take_down(root, counts, each.layer)
            except DriverFailed:
                left.append(each.layer)
    if not left:
        root.clean_up_driver()
    return tuple(left)


def settle(root: GraphRoot, note: Note) -> None:
    """Make a mount and its count agree, after a process died between the two.

    What is mounted and counted is left: others may have mounted it since.

    Raises:
        HostspecError: The driver could not unmount.
    """
    with root.mounts.writing() as counts:
        _settle(root, counts, note)


def _settle_all(root: GraphRoot, counts: MountCountsEdit, layer_id: str) -> None:
    """Settle what is noted of a layer's mount; by the dead, since the living note it under this lock."""
    for note in (Note(MOUNT, layer_id), Note(UNMOUNT, layer_id)):
        if root.unsettled.has(note):
            _settle(root, counts, note)
            root.unsettled.forget(note)


def _settle(root: GraphRoot, counts: MountCountsEdit, note: Note) -> None:
    count = counts.get(note.id)
    if count is None and note.kind == MOUNT and root.driver.exists(note.id):
        _take_down(root, counts, note.id)
    elif count is not None and note.kind == UNMOUNT and not is_mountpoint(count.path):
        counts.put(count._replace(users=0))


_CANNOT_NOTE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@contextmanager
def _noted(root: GraphRoot, note: Note) -> Iterator[None]:
    """Note what the driver is asked to do; the note goes if it refuses, since nothing has changed then."""
    try:
        root.unsettled.write(note)
    except (DriverFailed, StoreReadOnly) as error:
        # On a full file system people mount containers to see what fills it, or to save it; and before they
        # repair one that has become read-only, everything has to be unmounted.
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _CANNOT_NOTE:
            raise
    try:
        yield
    except HostspecError:
        root.unsettled.forget(note)
        raise


def _take_down(root: GraphRoot, counts: MountCountsEdit, layer_id: str) -> None:
    before = counts.get(layer_id)
    if before is None:
        root.driver.unmount(layer_id, root.driver.mount(layer_id))
        return
    with _noted(root, Note(UNMOUNT, layer_id)):
        root.driver.unmount(layer_id, before.path)
    counts.put(before._replace(users=0))
    root.unsettled.forget(Note(UNMOUNT, layer_id))
