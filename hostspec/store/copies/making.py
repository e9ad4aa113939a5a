"""Making one mapped copy of an image's top layer."""

from __future__ import annotations

from hostspec.errors import IdNotMapped, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.store.copies.listing import fitting, tops_of
from hostspec.store.copies.notes import note_strategy
from hostspec.store.copies.squashing import Owners, warn_of_squashing
from hostspec.store.filling import Making, layer_ref, make_layer, new_id
from hostspec.store.format.records import Image, Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.format.timestamps import now
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.layers import check_parent
from hostspec.store.tar_split_files import share_tar_split
from hostspec.values import CreateOptions, LayerRef

__all__ = ["Copying"]

_SWITCHED_ON = frozenset({"1", "t", "true", "yes", "on"})
"""What drivers take for a switch that is on."""


class Copying:
    """One mapped copy while it is made."""

    def __init__(
        self,
        root: GraphRoot,
        image: Image,
        layers: Snapshot[Layer],
        template: Layer,
        idmap: IdMap,
        *,
        native: bool,
    ) -> None:
        """Take what is to be copied.

        Args:
            root: The store.
            image: The image for which the copy is recorded.
            layers: The store's layers.
            template: The layer to copy.
            idmap: The map that the copy is to carry.
            native: Whether the driver copies, and not the fallback.
        """
        self._root = root
        self._image = image
        self._template = template
        self._parent = layers.with_id(template.parent)
        self._idmap = idmap
        self._native = native
        self._owners = Owners.of(layers, template)

    def make(self, options: CreateOptions) -> Layer:
        """Make the copy, without squashing if that can be; say what is squashed otherwise.

        A copy in which nothing had to be squashed serves everybody. Only ACLs and capabilities can have IDs
        that no record tells, and only layers that somebody else made can have owners that none tells.

        Returns:
            The copy, or the one that somebody else made meanwhile.

        Raises:
            IdNotMapped: An ID is outside the map, and squashing is not allowed.
        """
        outside = self._owners.outside(self._idmap)
        squashes_anyway = dict(self._root.options).get("ignore_chown_errors", "").lower() in _SWITCHED_ON
        if not outside and not squashes_anyway:
            try:
                return self._make(options._replace(squash=False), squashed=False)
            except IdNotMapped as error:
                if not options.squash:
                    raise
                outside = {f"{error.kind}s": [error.number]}
        may_squash = options.squash or squashes_anyway
        squashed = may_squash and (bool(outside) or not self._owners.complete)
        if squashed:
            name = self._image.names[0] if self._image.names else self._image.id
            warn_of_squashing(f"image {name}: owners outside the ID map {self._idmap}", outside)
        return self._make(options, squashed=squashed)

    def _make(self, options: CreateOptions, *, squashed: bool) -> Layer:
        parent = self._parent
        draft = self._template._replace(
            id=new_id(),
            names=(),
            created=now(),
            flags={},
            idmap=self._idmap,
            big_data=(),
            read_only=False,
            elsewhere="",
        )
        return make_layer(
            self._root,
            Making(
                draft=draft,
                create=lambda layer: self._create(layer, options),
                check=lambda edits: self._check(edits, squash=squashed),
                options=options,
                reads=(self._template.id, *((parent.id,) if parent else ())),
                belongs_to=("image", self._image.id),
                record=lambda edits, layer: self._record(edits, layer, squashed=squashed),
            ),
        )

    def _create(self, layer: Layer, options: CreateOptions) -> IdMap:
        template = LayerRef(self._template.id, self._template.idmap)
        return self._root.driver.create_from_template(
            layer.id, template, layer_ref(self._parent), options, native=self._native
        )

    def _check(self, edits: Edits, *, squash: bool) -> Layer | None:
        image = edits.images.with_id(self._image.id)
        if image is None:
            raise Unknown("image", self._image.id)
        if image.layer != self._image.layer:
            raise InvalidRequest(f"image {image.id}", "got another top layer meanwhile; try again")
        check_parent(edits, self._template)
        check_parent(edits, self._parent)
        return fitting(self._root, tops_of(self._root, image, edits.layers), self._idmap, squash=squash)

    def _record(self, edits: Edits, layer: Layer, *, squashed: bool) -> None:
        image = edits.images.get(self._image.id)
        strategy = "template" if self._native else "copy"
        share_tar_split(self._root.layout, self._template, layer.id)
        # The note is there before the copy can be found by its map.
        template = self._template.id if image.read_only else ""
        note_strategy(self._root, layer.id, strategy, template, squashed=squashed)
        if image.read_only:
            return
        edits.images.put(image._replace(mapped_layers=(*image.mapped_layers, layer.id)))
        edits.images.save()
