"""Making layers: empty ones on a parent, and ones filled from a tar stream."""

from __future__ import annotations

from collections.abc import Sequence

from hostspec.errors import InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.store.filling import Making, layer_ref, make_layer, new_id
from hostspec.store.format.records import Layer
from hostspec.store.format.timestamps import now
from hostspec.store.graph_root import Edits, GraphRoot
from hostspec.store.recovery import read_layers
from hostspec.values import CreateOptions

__all__ = ["check_parent", "create_empty", "create_layer", "draft_layer", "find_layer"]


def create_layer(
    root: GraphRoot,
    parent: str | None,
    *,
    layer_id: str | None = None,
    names: Sequence[str] = (),
    idmap: IdMap | None = None,
    options: CreateOptions | None = None,
) -> Layer:
    """Make an empty layer; see :meth:`hostspec.store.Store.create_layer`."""
    wanted = options or CreateOptions()
    draft, base = draft_layer(root, parent, layer_id=layer_id, names=names, idmap=idmap, options=wanted)
    return make_layer(
        root,
        Making(
            draft=draft,
            create=lambda layer: create_empty(root, layer, base, wanted),
            check=lambda edits: check_parent(edits, base),
            options=wanted,
            reads=(draft.parent,) if draft.parent else (),
        ),
    )


def draft_layer(
    root: GraphRoot,
    parent: str | None,
    *,
    layer_id: str | None,
    names: Sequence[str],
    idmap: IdMap | None,
    options: CreateOptions,
) -> tuple[Layer, Layer | None]:
    """Return the record of a layer that is to be made, and its parent's.

    Raises:
        Unknown: There is no such parent.
    """
    base = read_layers(root).get(parent) if parent else None
    inherited = base.idmap if base is not None else _default_idmap(root)
    draft = Layer(
        id=layer_id or new_id(),
        names=tuple(dict.fromkeys(names)),
        parent=base.id if base is not None else None,
        mount_label=options.mount_label,
        created=now(),
        idmap=inherited if idmap is None else idmap,
    )
    return draft, base


def _default_idmap(root: GraphRoot) -> IdMap:
    """Return the map of a layer that stands on nothing; none where everybody shifts when mounting."""
    if not root.idmap:
        return root.idmap
    from hostspec.store.copies.strategies import explain  # noqa: PLC0415 - few stores have a map of their own

    return IdMap() if explain(root, None, root.idmap, None).shifted_by_all else root.idmap


def create_empty(root: GraphRoot, layer: Layer, parent: Layer | None, options: CreateOptions) -> IdMap:
    """Make a layer that shows its parent's files, and return the map that they carry."""
    root.driver.create(layer.id, layer_ref(parent), options._replace(idmap=layer.idmap))
    return layer.idmap if parent is None else parent.idmap


def check_parent(edits: Edits, parent: Layer | None) -> None:
    """Look whether the parent is still there, and unchanged.

    Raises:
        Unknown: It has been removed meanwhile.
        InvalidRequest: It has been replaced by another of the same ID.
    """
    if parent is None:
        return
    present = edits.layers.with_id(parent.id)
    if present is None:
        raise Unknown("layer", parent.id)
    if present.idmap != parent.idmap or present.created != parent.created:
        raise InvalidRequest(f"layer {parent.id}", "was replaced while a layer was made on it; try again")


def find_layer(root: GraphRoot, diff_digest: str, parent: str | None) -> Layer | None:
    """Return a layer of that content on that parent, without an ID map; see :meth:`hostspec.store.Store`."""
    for layer in read_layers(root):
        if layer.diff_digest == diff_digest and layer.parent == parent and not layer.idmap:
            return layer
    return None
