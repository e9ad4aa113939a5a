"""Records as text and as JSON, in the forms that the peer prints."""

from __future__ import annotations

from collections.abc import Iterable

from hostspec.idmap import IdMap, IdRanges
from hostspec.store import Container, Image, Layer
from hostspec.store.format.record_json import Json, container_to_json, image_to_json, layer_to_json

__all__ = [
    "container_json",
    "container_lines",
    "created_lines",
    "idmap_lines",
    "image_json",
    "image_lines",
    "layer_json",
    "ranges_json",
]


def created_lines(identifier: str, names: Iterable[str]) -> list[str]:
    """Describe what was just made: its ID, and its names indented."""
    return [identifier, *(f"\t{name}" for name in names)]


def image_lines(image: Image) -> list[str]:
    """Describe an image as in a list."""
    return [
        image.id,
        *(f"\tname: {name}" for name in image.names),
        *(f"\tdigest: {digest}" for digest in image.digests),
        *(f"\tdata: {key}" for key in image.big_data),
    ]


def container_lines(container: Container) -> list[str]:
    """Describe a container as in a list."""
    return [
        container.id,
        *(f"\tname: {name}" for name in container.names),
        *(f"\tdata: {key}" for key in container.big_data),
    ]


def idmap_lines(idmap: IdMap) -> list[str]:
    """Describe a map, a line for each range."""
    return [
        f"{kind} mapping: (container={each.container_id}, host={each.host_id}, size={each.size})"
        for kind, ranges in (("UID", idmap.uids), ("GID", idmap.gids))
        for each in ranges
    ]


def layer_json(layer: Layer) -> Json:
    """Describe a layer for a script: its record, less the fields that nobody here knows."""
    return layer_to_json(layer._replace(extra={}))


def image_json(image: Image) -> Json:
    """Describe an image for a script, as :func:`layer_json`."""
    return image_to_json(image._replace(extra={}))


def container_json(container: Container) -> Json:
    """Describe a container for a script, as :func:`layer_json`."""
    return container_to_json(container._replace(extra={}))


def ranges_json(ranges: IdRanges) -> list[dict[str, int]]:
    """Describe one half of a map for a script."""
    return [each._asdict() for each in ranges]
