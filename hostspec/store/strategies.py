"""Which ways there are to give a container an ID map, and why the better ones are not possible."""

from __future__ import annotations

from typing import NamedTuple

from hostspec.idmap import IdMap
from hostspec.store.graph_root import GraphRoot

__all__ = ["Way", "ways_for"]


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


def ways_for(root: GraphRoot, idmap: IdMap) -> tuple[Way, ...]:
    """Return the ways, best first."""
    driver = root.driver
    shifting = driver.supports_shifting(idmap)
    native = driver.implements("create_from_template")
    return (
        Way("shift", shifting.possible, "one mount for each container", shifting.reason),
        Way(
            "template",
            native,
            "one change of owner for each file, once for each image and map",
            "the driver copies layers by itself" if native else "the driver does not copy layers by itself",
        ),
        Way(
            "copy",
            True,  # noqa: FBT003 - a field, and always true
            "every byte read and written, once for each image and map",
            "works with every driver",
        ),
    )
