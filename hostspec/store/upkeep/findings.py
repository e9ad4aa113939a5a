"""What a check of a store finds, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from hostspec.errors import StoreCorrupt

__all__ = ["CheckReport", "Finding", "Problem"]


class Problem(Enum):
    """Kinds of damage, in the words of the Go library where it knows them (types/errors.go)."""

    LAYER_UNACCOUNTED = "layer in lower level storage driver not accounted for"
    LAYER_UNREFERENCED = "layer not referenced by any images or containers"
    LAYER_NOT_IN_DRIVER = "layer is not in the lower level storage driver"
    LAYER_UNUSABLE = "layer cannot be read"
    LAYER_DIGEST = "layer content incorrect digest"
    LAYER_SIZE = "layer content incorrect size"
    LAYER_MODIFIED = "layer content modified"
    LAYER_DATA_MISSING = "layer data item is missing"
    PARENT_MISSING = "layer is missing"
    IMAGE_LAYER_MISSING = "image layer is missing"
    IMAGE_COPY_MISSING = "mapped copy of the image's layer is missing"
    IMAGE_LAYER_DAMAGED = "image layer is damaged"
    IMAGE_DATA_MISSING = "image data item is missing"
    IMAGE_DATA_SIZE = "image data item has incorrect size"
    IMAGE_DATA_DIGEST = "image data item has incorrect digest"
    CONTAINER_IMAGE_MISSING = "image missing"
    CONTAINER_IMAGE_DAMAGED = "image is damaged"
    CONTAINER_LAYER_MISSING = "container layer is missing"
    CONTAINER_LAYER_DAMAGED = "container layer is damaged"
    CONTAINER_DATA_MISSING = "container data item is missing"
    CONTAINER_DATA_SIZE = "container data item has incorrect size"
    CONTAINER_DATA_DIGEST = "container data item has incorrect digest"


class Finding(NamedTuple):
    """One thing that is wrong with one object."""

    kind: str
    """``"layer"``, ``"image"`` or ``"container"``."""
    id: str
    """The object's ID."""
    problem: Problem
    """What is wrong."""
    detail: str = ""
    """Where it is: a path, a key, an ID."""
    read_only: bool = False
    """Whether the object lies in an additional store, which is never written."""
    reason: str = ""
    """How it was noticed, where there is more to say than the problem."""

    def __str__(self) -> str:
        prefix = "read-only " if self.read_only else ""
        # As the Go library writes it, with what it does not say at the end: scripts look for the beginning.
        comma = "," if self.problem is Problem.LAYER_MODIFIED else ":"
        middle = f" {self.detail}{comma}" if self.detail else ""
        end = f": {self.reason}" if self.reason else ""
        return f"{prefix}{self.kind} {self.id}:{middle} {self.problem.value}{end}"


class CheckReport(NamedTuple):
    """What is wrong in a store."""

    findings: tuple[Finding, ...] = ()
    """One for each thing that is wrong."""
    damage: tuple[StoreCorrupt, ...] = ()
    """Records that cannot be understood; while there are any, nothing counts as unused."""

    def __bool__(self) -> bool:
        """Tell whether anything is wrong."""
        return bool(self.findings or self.damage)

    def of(self, kind: str, *, read_only: bool = False) -> dict[str, list[Finding]]:
        """Return the findings about objects of one kind, by ID."""
        found: dict[str, list[Finding]] = {}
        for each in self.findings:
            if each.kind == kind and each.read_only == read_only:
                found.setdefault(each.id, []).append(each)
        return found

    def having(self, *problems: Problem) -> Iterator[Finding]:
        """Yield the findings of these kinds."""
        return (each for each in self.findings if each.problem in problems)
