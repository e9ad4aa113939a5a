"""What to do before a copy is made for which the content of files has to be copied: an option says it."""

from __future__ import annotations

from typing import NamedTuple

from hostspec.errors import SlowWayRefused
from hostspec.idmap import IdMap
from hostspec.store.copies.listing import tops_of
from hostspec.store.format.records import Image, Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.notices import warn
from hostspec.store.recovery import read_layers

__all__ = ["CopyCost", "copy_cost", "cost_of_image", "heed_slow_way"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


class CopyCost(NamedTuple):
    """What has to be copied."""

    files: int
    """Files of all kinds, directories included, each inode once."""
    size: int
    """Bytes that they occupy."""

    def __str__(self) -> str:
        amount, unit = float(self.size), 0
        while amount >= _STEP and unit < len(_UNITS) - 1:
            amount, unit = amount / _STEP, unit + 1
        return f"{self.files} files, {amount:.{1 if unit else 0}f} {_UNITS[unit]}"


def copy_cost(root: GraphRoot, layer: Layer) -> CopyCost:
    """Return what a copy of a layer costs, whatever the driver shares with others.

    Found out by a walk over the layer's whole tree, which looks at each file and opens none.
    """
    from hostspec.disk_usage import measure_tree  # noqa: PLC0415 - most containers take no copy

    with root.driver.mounted(layer.id) as tree:
        usage = measure_tree(tree, blocks_are_shared=False)
    return CopyCost(usage.inodes, usage.exclusive_bytes)


def cost_of_image(root: GraphRoot, reference: str) -> CopyCost:
    """Return what a copy of an image's top layer costs; see :meth:`hostspec.store.Store.copy_cost`."""
    tops = tops_of(root, root.images.read().get(reference), read_layers(root))
    return copy_cost(root, tops[0]) if tops else CopyCost(0, 0)


def heed_slow_way(root: GraphRoot, image: Image, template: Layer, idmap: IdMap) -> None:
    """Do what the option ``on_slow_path`` says before a slow copy is made.

    Args:
        root: The store.
        image: The image.
        template: Its layer that is to be copied.
        idmap: The map that the copy is to carry.

    Raises:
        SlowWayRefused: It says not to make it.
    """
    if root.policy.on_slow_path == "allow":
        return
    cost = copy_cost(root, template)
    name = image.names[0] if image.names else image.id
    subject = f"container of image {name} with the ID map {idmap}"
    ahead = f"hostspec warm {_flags(idmap)} {name}"
    if root.policy.on_slow_path == "refuse":
        reason = (
            f"would first take a copy of {cost}, which the option on_slow_path=refuse forbids; "
            f"make it ahead with '{ahead}', or set on_slow_path to warn or allow"
        )
        raise SlowWayRefused(subject, reason, files=cost.files, size=cost.size)
    warn(f"{subject}: first takes a copy of {cost}; '{ahead}' makes it ahead")


def _flags(idmap: IdMap) -> str:
    """Return the flags that describe a map on the command line."""
    halves = [("uid", idmap.uids)]
    if idmap.uids != idmap.gids:
        halves.append(("gid", idmap.gids))
    return " ".join(
        " ".join(f"--{kind}map {each}" for each in ranges) or f"--host{kind}map" for kind, ranges in halves
    )
