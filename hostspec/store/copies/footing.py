"""Which layer a container stands on, for its ID map: the image's top layer, or a mapped copy of it.

A mapped copy has the top layer's parent and content, and differs only in its ID map. It is made once
for each image and map, recorded in the image's ``mapped-layers``, and found again by its maps. One in
which owners outside the map were squashed is only for containers that allow it; others get their own.
"""

from __future__ import annotations

from typing import NamedTuple

from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import Strategy
from hostspec.store.copies.listing import tops_of
from hostspec.store.copies.notes import renew_note
from hostspec.store.copies.strategies import Choice, choose
from hostspec.store.format.records import Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.graph_root import GraphRoot
from hostspec.store.notices import warn
from hostspec.store.recovery import read_layers
from hostspec.values import CreateOptions

__all__ = ["Footing", "Warmth", "find_footing", "warm"]


class Footing(NamedTuple):
    """What a container's own layer stands on."""

    parent: Layer | None
    """The parent, or ``None`` for a container without an image's files."""
    layer_idmap: IdMap
    """The map for the record of the container's layer; empty where mounts shift."""
    way: str
    """How it came to be so; as :attr:`hostspec.store.copies.strategies.Choice.way`."""
    reason: str = ""
    """Why, for people."""


class Warmth(NamedTuple):
    """What there is now for containers of one image and map."""

    way: str
    """``"template"`` or ``"copy"`` where a copy was made, ``"reuse"`` where there was one, ``"shift"`` or
    ``"none"`` where containers need none."""
    reason: str
    """Why, for people."""
    layer: Layer | None
    """The copy, if there is one."""


def find_footing(
    root: GraphRoot,
    image: Image | None,
    idmap: IdMap,
    strategy: Strategy | None,
    options: CreateOptions,
    *,
    ahead: bool = False,
) -> Footing:
    """Choose what a container with this map stands on, and make the mapped copy if it takes one.

    Args:
        root: The store.
        image: The container's image, or ``None``.
        idmap: The container's map.
        strategy: The way that was asked for, or ``None`` for what the store's options say.
        options: Squashing, threads and progress.
        ahead: Whether no container waits for it, so that it may be slow.

    Raises:
        OperationNotSupported: Shifting was asked for, and is not possible.
        SlowWayRefused: It takes a slow copy, and the store's options forbid one.
        Unknown: The image's top layer is missing.
    """
    layers = read_layers(root)
    choice = choose(root, layers, image, idmap, strategy, squash=options.squash)
    if image is not None and choice.way in {"template", "copy"}:
        # One at a time; those who waited find the copy of the first.
        with root.occasions.holding(_occasion(image, idmap)):
            layers = read_layers(root)
            image = root.images.read().get(image.id)
            choice = choose(root, layers, image, idmap, strategy, squash=options.squash)
            if choice.way in {"template", "copy"}:
                return _copied(root, layers, image, idmap, choice, options, ahead=ahead)
    _warn_of(choice)
    if image is not None and choice.stands_on is not None and choice.stands_on.id != image.layer:
        renew_note(root, choice.stands_on.id)  # before anybody takes it for unused
    layer_idmap = IdMap() if choice.way == "shift" else idmap
    return Footing(choice.stands_on, layer_idmap, choice.way, choice.reason)


def warm(
    root: GraphRoot,
    reference: str,
    idmap: IdMap | None,
    strategy: Strategy | None,
    options: CreateOptions,
) -> Warmth:
    """Make the copy that containers will stand on; see :meth:`hostspec.store.Store.warm`."""
    root.refuse_if_read_only()
    image = root.images.read().get(reference)
    wanted = root.idmap if idmap is None else idmap
    footing = find_footing(root, image, wanted, strategy, options, ahead=True)
    if footing.way not in {"template", "copy", "reuse"}:
        return Warmth(footing.way, footing.reason, None)
    return Warmth(footing.way, footing.reason, footing.parent)


def _copied(
    root: GraphRoot,
    layers: Snapshot[Layer],
    image: Image,
    idmap: IdMap,
    choice: Choice,
    options: CreateOptions,
    *,
    ahead: bool,
) -> Footing:
    """Make a mapped copy; the caller holds the lock for it."""
    from hostspec.store.copies.making import Copying  # noqa: PLC0415 - most containers take no new copy

    template = tops_of(root, image, layers)[0]
    if choice.slow and not ahead:
        from hostspec.store.copies.slow_ways import heed_slow_way  # noqa: PLC0415 - few copies are slow

        heed_slow_way(root, image, template, idmap)
    _warn_of(choice)
    copying = Copying(root, image, layers, template, idmap, native=choice.way == "template")
    wanted = options._replace(idmap=idmap, read_only=True, mount_label=template.mount_label, others=())
    copy = copying.make(wanted)
    return Footing(copy, idmap, choice.way, choice.reason)


def _warn_of(choice: Choice) -> None:
    if choice.forced and choice.not_for_podman:
        what = "shifting" if choice.way == "shift" else "a mapped copy"
        warn(f"{what} was asked for: {choice.not_for_podman}")


def _occasion(image: Image, idmap: IdMap) -> str:
    """Name what only one may do at a time: copy this image's top layer for this map."""
    from hashlib import sha256  # noqa: PLC0415 - few containers get here

    return sha256(f"{image.id} uids {idmap.uids} gids {idmap.gids}".encode()).hexdigest()
