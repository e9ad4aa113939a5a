"""Making images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hostspec.errors import InvalidRequest, Unknown
from hostspec.store.big_data import NewItems, pull_up
from hostspec.store.filling import new_id
from hostspec.store.format.layout import check_id
from hostspec.store.format.records import Image, Layer
from hostspec.store.format.table_places import STABLE
from hostspec.store.format.timestamps import now
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.mounting import shift_on_disk
from hostspec.store.recovery import recover_under_lock
from hostspec.store.unsettled import Note

__all__ = ["create_image"]

# What the Go library accepts (opencontainers/go-digest); it refuses a whole table in which there is another.
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"


def create_image(
    root: GraphRoot,
    top_layer: str | None,
    *,
    image_id: str | None = None,
    names: Sequence[str] = (),
    digest: str | None = None,
    metadata: str = "",
    created: str | None = None,
    big_data: Mapping[str, bytes] | None = None,
) -> Image:
    """Record an image; see :meth:`hostspec.store.Store.create_image`."""
    root.refuse_if_read_only()
    if digest is not None and not re.fullmatch(_DIGEST, digest):
        raise InvalidRequest(f"digest {digest!r}", "must be ALGORITHM:HEX, as in sha256:… with 64 digits")
    image = Image(
        id=image_id or new_id(),
        digest=digest,
        names=tuple(dict.fromkeys(names)),
        metadata=metadata,
        created=created or now(),
    )
    check_id("image", image.id)
    with NewItems(root.layout.images, big_data or {}) as items, root.editing(with_driver=False) as edits:
        recover_under_lock(root, edits)
        beyond = edits.images.with_id(image.id) if edits.images.is_read_only(image.id) else None
        edits.images.refuse_taken(None if beyond is not None else image.id, image.names)
        layer = edits.layers.find(top_layer) if top_layer else None
        if top_layer and layer is None:
            raise Unknown("layer", top_layer)
        if layer is not None:
            _refuse_shifted_layer(root, edits, layer)
        image = image._replace(layer=layer.id if layer is not None else None)
        with root.unsettled.noting([Note("image", image.id)]):
            if beyond is not None:
                image = _joined(image, pull_up(root, beyond), created=created)
            image = items.noted_in(image)
            items.publish(root, image)
            edits.images.put(image, place=STABLE)
            edits.images.save()
    return image


def _joined(wanted: Image, present: Image, *, created: str | None) -> Image:
    """Return an image of an additional store with what was asked for instead (store.go, ``CreateImage``)."""
    return present._replace(
        layer=wanted.layer,
        digest=wanted.digest or present.digest,
        names=tuple(dict.fromkeys((*present.names, *wanted.names))),
        metadata=wanted.metadata or present.metadata,
        created=created or present.created,
        mapped_layers=(),
    )


def _refuse_shifted_layer(root: GraphRoot, edits: Edits, layer: Layer) -> None:
    """Refuse the layer of a container that is shifted, if what is written into it carries host IDs."""
    for container in edits.containers:
        if container.layer == layer.id and shift_on_disk(root, layer, container):
            reason = f"belongs to container {container.id}, whose files are shifted when it is mounted"
            raise InvalidRequest(f"layer {layer.id}", f"{reason}; import its diff as a layer instead")
