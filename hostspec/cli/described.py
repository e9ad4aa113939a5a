"""Records as text and as JSON, in the forms that the peer prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hostspec.idmap import IdMap, IdRanges
from hostspec.store import Container, Image, Layer

__all__ = [
    "container_json",
    "container_lines",
    "created_lines",
    "idmap_lines",
    "image_json",
    "image_lines",
    "layer_json",
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


def layer_json(layer: Layer) -> dict[str, object]:
    """Describe a layer for a script."""
    return _given(
        {
            "id": layer.id,
            "names": layer.names,
            "parent": layer.parent,
            "metadata": layer.metadata,
            "mountlabel": layer.mount_label,
            "created": layer.created,
            "compressed-diff-digest": layer.compressed_digest,
            "compressed-size": layer.compressed_size,
            "diff-digest": layer.diff_digest,
            "diff-size": layer.diff_size,
            "compression": layer.compression,
            "uidset": layer.uids,
            "gidset": layer.gids,
            "flags": layer.flags,
            "uidmap": _ranges_json(layer.idmap.uids),
            "gidmap": _ranges_json(layer.idmap.gids),
            "big-data-names": layer.big_data,
        }
    )


def image_json(image: Image) -> dict[str, object]:
    """Describe an image for a script."""
    return _given(
        {
            "id": image.id,
            "digest": image.digest,
            "names": image.names,
            "names-history": image.names_history,
            "layer": image.layer,
            "mapped-layers": image.mapped_layers,
            "metadata": image.metadata,
            "big-data-names": image.big_data,
            "big-data-sizes": dict(sorted(image.big_data_sizes.items())),
            "big-data-digests": dict(sorted(image.big_data_digests.items())),
            "created": image.created,
            "flags": image.flags,
        }
    )


def container_json(container: Container) -> dict[str, object]:
    """Describe a container for a script."""
    return _given(
        {
            "id": container.id,
            "names": container.names,
            "image": container.image or "",
            "layer": container.layer,
            "metadata": container.metadata,
            "big-data-names": container.big_data,
            "big-data-sizes": dict(sorted(container.big_data_sizes.items())),
            "big-data-digests": dict(sorted(container.big_data_digests.items())),
            "created": container.created,
            "uidmap": _ranges_json(container.idmap.uids),
            "gidmap": _ranges_json(container.idmap.gids),
            "flags": container.flags,
        },
        always=("image",),
    )


def _ranges_json(ranges: IdRanges) -> list[dict[str, int]]:
    return [each._asdict() for each in ranges]


def _given(fields: Mapping[str, object], always: tuple[str, ...] = ()) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value or name in always}
