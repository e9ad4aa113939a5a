"""Making containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hostspec.errors import Unknown
from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import Strategy
from hostspec.store.copies.footing import Footing, find_footing
from hostspec.store.copies.listing import copies_of
from hostspec.store.copies.notes import note_use
from hostspec.store.filling import Making, make_layer, new_id
from hostspec.store.format.layout import check_id
from hostspec.store.format.records import VOLATILE, Container, Image, Layer
from hostspec.store.format.table_places import STABLE, VOLATILE_PLACE
from hostspec.store.format.timestamps import now
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.layers import check_parent, create_empty
from hostspec.values import CreateOptions

__all__ = ["create_container"]


def create_container(  # noqa: PLR0913 - as the method of Store has them
    root: GraphRoot,
    image: str | None,
    *,
    container_id: str | None = None,
    names: Sequence[str] = (),
    idmap: IdMap | None = None,
    strategy: Strategy | None = None,
    metadata: str = "",
    flags: Mapping[str, object] | None = None,
    options: CreateOptions | None = None,
) -> Container:
    """Make a container and its layer; see :meth:`hostspec.store.Store.create_container`."""
    root.refuse_if_read_only()
    wanted = options or CreateOptions()
    found = root.images.read().get(image) if image else None
    volatile = {VOLATILE: True} if root.layout.transient else {}
    container = Container(
        id=container_id or new_id(),
        names=tuple(dict.fromkeys(names)),
        image=found.id if found is not None else None,
        layer=new_id(),
        metadata=metadata,
        created=now(),
        idmap=root.idmap if idmap is None else idmap,
        # Both labels are there even where they are empty: the Go library writes them so.
        flags={"MountLabel": wanted.mount_label, "ProcessLabel": "", **volatile, **(flags or {})},
    )
    check_id("container", container.id)
    root.containers.read().refuse_taken(container.id, container.names)
    footing = find_footing(root, found, container.idmap, strategy, wanted)
    try:
        _make(root, container, found, footing, wanted)
    except Unknown:
        # A mapped copy may be removed as unused while we are about to use it; then there will be another.
        if footing.parent is None or not footing.parent.idmap or footing.parent.id in root.layers.read():
            raise
        footing = find_footing(root, found, container.idmap, strategy, wanted)
        _make(root, container, found, footing, wanted)
    parent = footing.parent
    if footing.way == "reuse" and parent is not None and (found is None or parent.id != found.layer):
        note_use(root, parent.id)
    if footing.way in {"template", "copy"}:
        from hostspec.store.copies.unused import tidy_up  # noqa: PLC0415 - most containers take no new copy

        tidy_up(root)
    return container


def _make(
    root: GraphRoot, container: Container, image: Image | None, footing: Footing, options: CreateOptions
) -> None:
    parent = footing.parent
    draft = Layer(
        id=container.layer,
        parent=parent.id if parent is not None else None,
        mount_label=options.mount_label,
        created=now(),
        idmap=footing.layer_idmap,
    )

    def check(edits: Edits) -> None:
        edits.containers.refuse_taken(container.id, container.names)
        if image is not None:
            present = edits.images.with_id(image.id)
            tops = () if present is None else (present.layer, *copies_of(root, present))
            if present is None or (parent is not None and parent.id not in tops):
                raise Unknown("image", image.id)
        check_parent(edits, parent)

    def record(edits: Edits, _layer: Layer) -> None:
        edits.containers.put(container, place=VOLATILE_PLACE if root.layout.transient else STABLE)
        edits.containers.save()

    make_layer(
        root,
        Making(
            draft=draft,
            create=lambda layer: create_empty(root, layer, parent, options),
            check=check,
            options=options,
            reads=(parent.id,) if parent is not None else (),
            belongs_to=("container", container.id),
            record=record,
        ),
    )
