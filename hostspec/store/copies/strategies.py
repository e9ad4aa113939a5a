"""Which way a container gets its ID map: the only place where that is decided.

There are three, the cheapest first: *shift* when the container is mounted, a *template* copy by the driver,
and a *copy* by diff and apply. What the driver says of this kernel, file system and map tells which of them
are possible, and whether its own copies need more than a change of each file's metadata. A copy that is there
already costs nothing, however it was made.

Where podman, or whatever else uses the Go library, is to mount the container, there is less choice, since
that library decides by itself whether it shifts:

- Where it can, it maps whatever a mapped container stands on, a mapped copy too. Such a container would be
  mapped twice, and mounting it fails.
- With a driver with which it never shifts, it refuses a shifted container ("shifting not enabled").

So ``auto`` agrees with it wherever it can shift, and ``shift = native-only`` everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostspec.errors import OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import Strategy
from hostspec.store.copies.listing import fitting, tops_of
from hostspec.store.copies.notes import is_noted
from hostspec.store.format.records import Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import with_descent
from hostspec.store.recovery import read_layers
from hostspec.values import Shifting, TemplateCost

__all__ = ["Choice", "Way", "choose", "explain", "ways_for"]

_MAPPED_TWICE = (
    "podman, and whatever else uses the Go library, cannot mount it: "
    "they shift it once more when they mount it, whatever it stands on"
)
_NOT_SHIFTED = (
    "podman, and whatever else uses the Go library, refuse to mount it: "
    "they do not shift with this driver ('shifting not enabled')"
)


_COSTS = {
    TemplateCost.METADATA: "one change of owner for each file",
    TemplateCost.REFLINKS: "each file made anew, with the blocks of the old one",
    TemplateCost.CONTENT: "every byte read and written",
}


class Way(NamedTuple):
    """One way to give a container an ID map."""

    name: str
    """``"shift"``, ``"template"`` or ``"copy"``."""
    possible: bool
    """Whether it can be done here."""
    cost: str
    """What it costs, for people."""
    reason: str
    """What makes it possible, or what is missing."""
    slow: bool = False
    """Whether the content of files has to be copied."""


class Choice(NamedTuple):
    """How a container gets its ID map, and why so."""

    way: str
    """``"none"`` (nothing to map), ``"shift"``, ``"template"``, ``"copy"`` or ``"reuse"`` (of a copy)."""
    reason: str
    """Why this one, for people."""
    ways: tuple[Way, ...] = ()
    """All ways to make a map, cheapest first; none where nothing is to be mapped."""
    stands_on: Layer | None = None
    """The layer on which the container stands, if it is there already."""
    not_for_podman: str = ""
    """Why programs that use the Go library cannot mount the container, or ``""``."""
    forced: bool = False
    """Whether a strategy was named, by the caller or by an option."""

    @property
    def slow(self) -> bool:
        """Whether the content of files has to be copied for it."""
        return any(way.slow for way in self.ways if way.name == self.way)

    @property
    def shifted_by_all(self) -> bool:
        """Whether every program that uses the store shifts such a container when it mounts it."""
        return self.way == "shift" and not self.not_for_podman


def ways_for(root: GraphRoot, idmap: IdMap) -> tuple[Way, ...]:
    """Return the ways to give a container this map, cheapest first, whatever its image is."""
    return _ways(root, root.driver.supports_shifting(idmap))


def _ways(root: GraphRoot, shifting: Shifting, against_shifting: str = "") -> tuple[Way, ...]:
    """Return the ways, cheapest first.

    Args:
        root: The store.
        shifting: What the driver says of the map.
        against_shifting: Why what the container stands on cannot be shifted, whatever the driver can.
    """
    driver = root.driver
    against = (against_shifting or _policy_against_shifting(root, shifting)) if shifting.possible else ""
    native = driver.implements("create_from_template")
    cost, cost_of_copy = driver.template_cost(), driver.template_cost(native=False)
    return (
        Way(
            "shift",
            possible=shifting.possible and not against,
            cost="one mount for each container",
            reason=against or shifting.reason,
        ),
        Way(
            "template",
            possible=native,
            cost=f"{_COSTS[cost]}, once for each image and map",
            reason=f"the driver {'copies layers by itself' if native else 'does not copy layers by itself'}",
            slow=native and cost is TemplateCost.CONTENT,
        ),
        Way(
            "copy",
            possible=True,
            cost=f"{_COSTS[cost_of_copy]}, once for each image and map",
            reason="works with every driver",
            slow=cost_of_copy is TemplateCost.CONTENT,
        ),
    )


def choose(
    root: GraphRoot,
    layers: Snapshot[Layer] | None,
    image: Image | None,
    idmap: IdMap,
    strategy: Strategy | None,
    *,
    squash: bool = False,
) -> Choice:
    """Choose how a container with this map is made.

    As the Go library does (store.go, ``imageTopLayerForMapping``): shift where the driver can and the top
    layer carries container IDs, else whichever of the image's top layers has exactly this map, else a new
    mapped copy, made in the cheapest way.

    Args:
        root: The store.
        layers: Its layers; not needed without an image.
        image: The container's image, or ``None``.
        idmap: The container's map.
        strategy: The way that was asked for, or ``None`` for what the store's options say.
        squash: Whether owners outside the map may be replaced.

    Raises:
        OperationNotSupported: Shifting was asked for, and is not possible.
        Unknown: The image's top layer is missing.
    """
    tops = tops_of(root, image, layers) if layers is not None else []
    if not idmap:
        return _without_map(root, tops)
    wanted = strategy or root.policy.idmap_strategy
    shifting = root.driver.supports_shifting(idmap)
    against = _descent_against_shifting(root, layers, tops[0]) if layers is not None and tops else ""
    ways = _ways(root, shifting, against)
    if wanted == "shift" and not ways[0].possible:
        if against or not shifting.possible:
            raise OperationNotSupported(root.layout.driver, f"shift to the ID map {idmap}", ways[0].reason)
        # Whoever names it counts more than the option shift.
        ways = (ways[0]._replace(possible=True, reason=shifting.reason), *ways[1:])
    present = fitting(root, tops, idmap, squash=squash)
    if wanted == "shift" or (wanted == "auto" and ways[0].possible):
        choice = Choice("shift", ways[0].reason, stands_on=tops[0] if tops else None)
    elif not tops:
        choice = Choice("none", "there are no files to map")
    elif present is not None:
        choice = Choice("reuse", f"layer {present.id} carries this map already", stands_on=present)
    else:
        choice = _cheapest_copy(ways, wanted)
    return choice._replace(
        ways=ways,
        forced=wanted != "auto",
        not_for_podman=_against_podman(choice.way, shifting),
    )


def explain(root: GraphRoot, image: str | None, idmap: IdMap | None, strategy: Strategy | None) -> Choice:
    """Say how a container would be made; see :meth:`hostspec.store.Store.explain_idmap`."""
    found = root.images.read().get(image) if image else None
    layers = read_layers(root) if found is not None else None  # which may be damaged
    return choose(root, layers, found, root.idmap if idmap is None else idmap, strategy)


def _without_map(root: GraphRoot, tops: list[Layer]) -> Choice:
    unmapped = fitting(root, tops, IdMap(), squash=False)
    if unmapped is not None or not tops:
        return Choice("none", "the container has no ID map", stands_on=unmapped)
    # The image's top layer carries a map itself, which only a copy can be without.
    shifting = root.driver.supports_shifting(IdMap())
    ways = _ways(root, shifting, f"layer {tops[0].id} carries a map")
    return _cheapest_copy(ways, "auto")._replace(ways=ways)


def _cheapest_copy(ways: Sequence[Way], wanted: Strategy) -> Choice:
    allowed = [way for way in ways if way.possible and way.name != "shift"]
    # Whoever wants a template gets the copy from a driver that has none; it is what the contract promises.
    best = next(way for way in allowed if wanted != "copy" or way.name == "copy")
    return Choice(best.name, best.reason)


def _policy_against_shifting(root: GraphRoot, shifting: Shifting) -> str:
    if root.policy.shift == "native-only" and not shifting.shared_with_go:
        return (
            f"{shifting.reason}, but the option shift=native-only leaves it to what the Go library can mount"
        )
    return ""


def _descent_against_shifting(root: GraphRoot, layers: Snapshot[Layer], top: Layer) -> str:
    """Return why a container on this layer cannot be shifted, or ``""``.

    A copy for another map may, in the driver, stand on the layer that it was made from, whatever its
    own files carry, so nothing that stands on a copy is shifted.
    """
    copies = {layer_id for image in root.images.read() for layer_id in image.mapped_layers}
    for layer in with_descent(layers, top.id):
        if layer.idmap or layer.id in copies or is_noted(root, layer.id):
            return f"layer {layer.id} is for an ID map already"
    return ""


def _against_podman(way: str, shifting: Shifting) -> str:
    if way == "shift":
        return "" if shifting.shared_with_go else _NOT_SHIFTED
    mapped_twice = way != "none" and shifting.possible and shifting.shared_with_go
    return _MAPPED_TWICE if mapped_twice else ""
