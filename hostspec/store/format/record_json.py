"""The JSON of records: fields, their order and what is left out when empty are containers/storage's.

Objects whose keys are not fixed are sorted by them, as Go writes them.

Fields that are not known here are kept and written back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from hostspec.errors import InvalidIdMap
from hostspec.idmap import IdMap
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.timestamps import NEVER

__all__ = [
    "Json",
    "Malformed",
    "container_from_json",
    "container_to_json",
    "image_from_json",
    "image_to_json",
    "layer_from_json",
    "layer_to_json",
]

Json = dict[str, object]

_NO_MAP = IdMap()
_EMPTY: Mapping[str, object] = {}
# A table has tens of thousands of lists, whose items are looked at in one go.
_TEXT = frozenset({str})
_NUMBER = frozenset({int})


class Malformed(Exception):
    """A field of a record does not have the type that it must have."""


def layer_from_json(fields: Json) -> Layer:
    """Read a layer's record; takes what it knows out of ``fields``.

    Raises:
        Malformed: A field has the wrong type.
    """
    compressed_digest = _text(fields, "compressed-diff-digest") or None
    diff_digest = _text(fields, "diff-digest") or None
    toc_digest = _text(fields, "toc-digest") or None
    compressed_size = _number(fields, "compressed-size")
    diff_size = _number(fields, "diff-size")
    return Layer(
        id=_id(fields),
        names=_texts(fields, "names"),
        parent=_text(fields, "parent") or None,
        metadata=_text(fields, "metadata"),
        mount_label=_text(fields, "mountlabel"),
        created=_text(fields, "created") or NEVER,
        compressed_digest=compressed_digest,
        # Zero is left out, and without a digest a size means nothing.
        compressed_size=compressed_size if compressed_digest else None,
        diff_digest=diff_digest,
        toc_digest=toc_digest,
        diff_size=diff_size if diff_digest or toc_digest else None,
        compression=_number(fields, "compression"),
        uids=_numbers(fields, "uidset"),
        gids=_numbers(fields, "gidset"),
        flags=_mapping(fields, "flags"),
        idmap=_idmap(fields),
        big_data=_texts(fields, "big-data-names"),
        extra=fields or _EMPTY,
    )


def layer_to_json(layer: Layer) -> Json:
    """Write a layer's record."""
    return _without_empty(
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
            "toc-digest": layer.toc_digest,
            "diff-size": layer.diff_size,
            "compression": layer.compression,
            "uidset": layer.uids,
            "gidset": layer.gids,
            "flags": layer.flags,
            **_idmap_to_json(layer.idmap),
            "big-data-names": layer.big_data,
        },
        layer.extra,
    )


def image_from_json(fields: Json) -> Image:
    """Read an image's record; takes what it knows out of ``fields``.

    Raises:
        Malformed: A field has the wrong type.
    """
    return Image(
        id=_id(fields),
        digest=_text(fields, "digest") or None,
        names=_texts(fields, "names"),
        names_history=_texts(fields, "names-history"),
        layer=_text(fields, "layer") or None,
        mapped_layers=_texts(fields, "mapped-layers"),
        metadata=_text(fields, "metadata"),
        big_data=_texts(fields, "big-data-names"),
        big_data_sizes=_sizes(fields),
        big_data_digests=_digests(fields),
        created=_text(fields, "created") or NEVER,
        flags=_mapping(fields, "flags"),
        extra=fields or _EMPTY,
    )


def image_to_json(image: Image) -> Json:
    """Write an image's record."""
    return _without_empty(
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
        },
        image.extra,
    )


def container_from_json(fields: Json) -> Container:
    """Read a container's record; takes what it knows out of ``fields``.

    Raises:
        Malformed: A field has the wrong type.
    """
    return Container(
        id=_id(fields),
        names=_texts(fields, "names"),
        image=_text(fields, "image") or None,
        layer=_text(fields, "layer"),
        metadata=_text(fields, "metadata"),
        big_data=_texts(fields, "big-data-names"),
        big_data_sizes=_sizes(fields),
        big_data_digests=_digests(fields),
        created=_text(fields, "created") or NEVER,
        idmap=_idmap(fields),
        flags=_mapping(fields, "flags"),
        extra=fields or _EMPTY,
    )


def container_to_json(container: Container) -> Json:
    """Write a container's record; ``image`` and ``layer`` are there even when empty."""
    return _without_empty(
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
            **_idmap_to_json(container.idmap),
            "flags": container.flags,
        },
        container.extra,
        always=("image", "layer"),
    )


def _without_empty(fields: Json, extra: Mapping[str, object], always: tuple[str, ...] = ()) -> Json:
    kept = {name: value for name, value in fields.items() if value or name in always}
    kept.update(extra)
    return kept


def _idmap_to_json(idmap: IdMap) -> Json:
    return {
        name: [range_._asdict() for range_ in ranges] if ranges else None
        for name, ranges in (("uidmap", idmap.uids), ("gidmap", idmap.gids))
    }


def _id(fields: Json) -> str:
    identifier = _text(fields, "id")
    if not identifier:
        raise Malformed("a record has no ID")
    if identifier in {".", ".."} or "/" in identifier or "\0" in identifier:
        # Its files would lie outside of its directory, and be deleted with it.
        raise Malformed(f"its ID {identifier!r} cannot be the name of a file")
    return identifier


def _text(fields: Json, name: str) -> str:
    value = fields.pop(name, "")
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise Malformed(f"{name!r} is no text")


def _number(fields: Json, name: str) -> int:
    value = fields.pop(name, 0)
    if isinstance(value, int):
        return value
    if value is None:
        return 0
    raise Malformed(f"{name!r} is no whole number")


def _texts(fields: Json, name: str) -> tuple[str, ...]:
    value = fields.pop(name, None)
    if value is None:
        return ()
    if not isinstance(value, list) or not {*map(type, value)} <= _TEXT:
        raise Malformed(f"{name!r} is no list of texts")
    return tuple(value)


def _numbers(fields: Json, name: str) -> tuple[int, ...]:
    value = fields.pop(name, None)
    if value is None:
        return ()
    if not isinstance(value, list) or not {*map(type, value)} <= _NUMBER:
        raise Malformed(f"{name!r} is no list of whole numbers")
    return tuple(value)


def _mapping(fields: Json, name: str) -> Mapping[str, object]:
    value = fields.pop(name, None)
    if value is None:
        return _EMPTY
    if not isinstance(value, dict):
        raise Malformed(f"{name!r} is no object")
    return value


def _sizes(fields: Json) -> Mapping[str, int]:
    sizes = _mapping(fields, "big-data-sizes")
    if not all(isinstance(each, int) for each in sizes.values()):
        raise Malformed("'big-data-sizes' has a value that is no whole number")
    return cast(Mapping[str, int], sizes)


def _digests(fields: Json) -> Mapping[str, str]:
    digests = _mapping(fields, "big-data-digests")
    if not all(isinstance(each, str) for each in digests.values()):
        raise Malformed("'big-data-digests' has a value that is no text")
    return cast(Mapping[str, str], digests)


def _idmap(fields: Json) -> IdMap:
    uids, gids = fields.pop("uidmap", None), fields.pop("gidmap", None)
    if not uids and not gids:
        return _NO_MAP
    try:
        return IdMap(_ranges(uids), _ranges(gids))
    except InvalidIdMap as error:
        raise Malformed(f"its ID map cannot be: {error}") from error


def _ranges(value: object) -> list[tuple[int, int, int]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed("an ID map is no list")
    return [_range(each) for each in value]


def _range(value: object) -> tuple[int, int, int]:
    if not isinstance(value, dict):
        raise Malformed("a range of an ID map is no object")
    return _number(value, "container_id"), _number(value, "host_id"), _number(value, "size")
