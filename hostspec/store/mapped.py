"""Which layer a container stands on, for its ID map: the image's top layer, or a mapped copy of it.

A mapped copy has the top layer's parent and content, and differs only in its ID map. It is made once
for each image and map, recorded in the image's ``mapped-layers``, and found again by its maps. One in
which owners outside the map were squashed is only for containers that allow it; others get their own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hostspec.errors import InvalidRequest, OperationNotSupported, Unknown
from hostspec.idmap import IdMap
from hostspec.store.copies import copies_of, is_noted, is_squashed, note_strategy
from hostspec.store.filling import Making, layer_ref, make_layer, new_id
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.layers import check_parent
from hostspec.store.lineage import with_descent
from hostspec.store.records import Image, Layer
from hostspec.store.recovery import read_layers
from hostspec.store.tables import Snapshot
from hostspec.store.tar_split_files import share_tar_split
from hostspec.store.timestamps import now
from hostspec.values import CreateOptions, LayerRef, ProgressCallback

__all__ = ["Footing", "Strategy", "find_footing"]

Strategy = Literal["auto", "shift", "template", "copy"]
"""How a container gets its ID map: shifted when it is mounted, or on a mapped copy of the image's top
layer, made by the driver (template) or by diff and apply (copy). ``auto`` takes the first that works."""


class Footing(NamedTuple):
    """What a container's own layer stands on."""

    parent: Layer | None
    """The parent, or ``None`` for a container without an image's files."""
    layer_idmap: IdMap
    """The map for the record of the container's layer; empty where mounts shift."""
    strategy: str
    """``"none"`` (nothing to map), ``"shift"``, ``"template"``, ``"copy"`` or ``"reuse"``."""


def find_footing(
    root: GraphRoot,
    image: Image | None,
    idmap: IdMap,
    strategy: Strategy,
    *,
    squash: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Footing:
    """Choose what a container with this map stands on, and make the mapped copy if it takes one.

    As the Go library does (store.go, ``imageTopLayerForMapping``): shift where the driver can and the top
    layer carries container IDs, else whichever of the image's top layers has exactly this map, else a new
    mapped copy.

    Raises:
        OperationNotSupported: Shifting was asked for, and the driver cannot.
        Unknown: The image's top layer is missing.
    """
    layers = read_layers(root)
    candidates = _candidates(root, image, layers)
    top = candidates[0] if candidates else None
    if strategy in {"auto", "shift"} and idmap:
        reason = _reason_against_shifting(root, layers, top, idmap)
        if not reason:
            return Footing(top, IdMap(), "shift")
        if strategy == "shift":
            raise OperationNotSupported(root.layout.driver, f"shift to the ID map {idmap}", reason)
    if image is None or not candidates:
        return Footing(None, idmap, "none")
    fitting = _fitting(root, candidates, idmap, squash=squash)
    if fitting is not None:
        return Footing(fitting, idmap, "reuse" if idmap else "none")
    with root.occasions.holding(_occasion(image, idmap)):
        layers = read_layers(root)
        image = root.images.read().get(image.id)  # others may have added a copy while we waited
        candidates = _candidates(root, image, layers)
        fitting = _fitting(root, candidates, idmap, squash=squash)
        if fitting is not None:
            return Footing(fitting, idmap, "reuse")
        made = _Copying(root, image, candidates[0], layers.with_id(candidates[0].parent), idmap)
        native = strategy != "copy" and root.driver.implements("create_from_template")
        copy = made.make(
            CreateOptions(
                idmap=idmap,
                read_only=True,
                mount_label=candidates[0].mount_label,
                squash=squash,
                threads=threads,
                progress=progress,
            ),
            native=native,
        )
        return Footing(copy, idmap, "template" if native else "copy")


class _Copying(NamedTuple):
    """One mapped copy while it is made."""

    root: GraphRoot
    image: Image
    template: Layer
    parent: Layer | None
    idmap: IdMap

    def make(self, options: CreateOptions, *, native: bool) -> Layer:
        """Make the copy, or return the one that somebody else made meanwhile."""
        draft = self.template._replace(
            id=new_id(),
            names=(),
            created=now(),
            flags={},
            idmap=self.idmap,
            big_data=(),
            read_only=False,
            elsewhere="",
        )
        return make_layer(
            self.root,
            Making(
                draft=draft,
                create=lambda layer: self._create(layer, options, native=native),
                check=lambda edits: self._check(edits, squash=options.squash),
                options=options,
                reads=(self.template.id, *((self.parent.id,) if self.parent else ())),
                belongs_to=("image", self.image.id),
                record=lambda edits, layer: self._record(edits, layer, options, native=native),
            ),
        )

    def _create(self, layer: Layer, options: CreateOptions, *, native: bool) -> IdMap:
        template = LayerRef(self.template.id, self.template.idmap)
        return self.root.driver.create_from_template(
            layer.id, template, layer_ref(self.parent), options, native=native
        )

    def _check(self, edits: Edits, *, squash: bool) -> Layer | None:
        image = edits.images.with_id(self.image.id)
        if image is None:
            raise Unknown("image", self.image.id)
        if image.layer != self.image.layer:
            raise InvalidRequest(f"image {image.id}", "got another top layer meanwhile; try again")
        check_parent(edits, self.template)
        check_parent(edits, self.parent)
        return _fitting(self.root, _candidates(self.root, image, edits.layers), self.idmap, squash=squash)

    def _record(self, edits: Edits, layer: Layer, options: CreateOptions, *, native: bool) -> None:
        image = edits.images.get(self.image.id)
        strategy = "template" if native else "copy"
        share_tar_split(self.root.layout, self.template, layer.id)
        # The note is there before the copy can be found by its map.
        template = self.template.id if image.read_only else ""
        note_strategy(self.root, layer.id, strategy, template, squashed=options.squash)
        if image.read_only:
            return
        edits.images.put(image._replace(mapped_layers=(*image.mapped_layers, layer.id)))
        edits.images.save()


def _reason_against_shifting(
    root: GraphRoot, layers: Snapshot[Layer], top: Layer | None, idmap: IdMap
) -> str:
    """Return why a container on this layer cannot be shifted, or ``""``.

    A copy for another map may, in the driver, stand on the layer that it was made from, whatever its
    own files carry, so nothing that stands on a copy is shifted.
    """
    copies = {layer_id for image in root.images.read() for layer_id in image.mapped_layers}
    for layer in with_descent(layers, top.id if top is not None else None):
        if layer.idmap or layer.id in copies or is_noted(root, layer.id):
            return f"layer {layer.id} is for an ID map already"
    shifting = root.driver.supports_shifting(idmap)
    return "" if shifting.possible else shifting.reason or "the driver cannot"


def _candidates(root: GraphRoot, image: Image | None, layers: Snapshot[Layer]) -> list[Layer]:
    """Return the image's top layer and its mapped copies, as far as they are there with their parents."""
    if image is None or image.layer is None:
        return []
    tops = (image.layer, *copies_of(root, image))
    found = [layer for each in tops if (layer := layers.with_id(each)) is not None]
    whole = [layer for layer in found if layer.parent is None or layer.parent in layers]
    if not whole:
        raise Unknown("layer", image.layer)
    return whole


def _fitting(root: GraphRoot, candidates: list[Layer], idmap: IdMap, *, squash: bool) -> Layer | None:
    """Return the first layer with this map in which no owner was squashed, unless that is allowed."""
    same = (layer for layer in candidates if layer.idmap == idmap)
    return next((layer for layer in same if squash or not is_squashed(root, layer.id)), None)


def _occasion(image: Image, idmap: IdMap) -> str:
    """Name what only one may do at a time: copy this image's top layer for this map."""
    from hashlib import sha256  # noqa: PLC0415 - few containers get here

    return sha256(f"{image.id} uids {idmap.uids} gids {idmap.gids}".encode()).hexdigest()
