"""Sub-commands about layers as the driver has them, without the store's records."""

from __future__ import annotations

import os

from hostspec.cli.context import Context, idmap_of
from hostspec.cli.grammar import Arguments
from hostspec.cli.render import print_json
from hostspec.errors import Duplicate, InvalidRequest, OperationNotSupported, Unknown
from hostspec.idmap import IdMap
from hostspec.values import CreateOptions, LayerRef

__all__ = ["apply_diff_using_staging_dir", "create_storage_layer", "storage_layers"]


def create_storage_layer(context: Context, arguments: Arguments) -> None:
    """Make a layer that only the driver knows."""
    from hostspec.store.filling import new_id  # noqa: PLC0415 - listing needs none of it
    from hostspec.store.format.layout import check_id  # noqa: PLC0415

    store = context.store
    driver = store.driver
    layer_id = arguments.one("id") or new_id()
    check_id("layer", layer_id)
    if driver.exists(layer_id):
        raise Duplicate("ID", layer_id)
    reference = arguments.positional(0) or None
    parent = None
    if reference is not None:
        recorded = store.layer(reference) if store.has_layer(reference) else None
        if recorded is None and not driver.exists(reference):
            raise Unknown("layer", reference)
        parent = LayerRef(recorded.id, recorded.idmap) if recorded else LayerRef(reference)
    options = CreateOptions(
        idmap=idmap_of(arguments) or IdMap(),
        read_only=arguments.given("readonly"),
        mount_label=arguments.one("label") or "",
        squash=context.squash,
    )
    driver.create(layer_id, parent, options)
    driver.commit(layer_id)
    if arguments.given("json"):
        print_json({"id": layer_id})
    else:
        print(layer_id)


def storage_layers(context: Context, arguments: Arguments) -> int:
    """List the layers that the driver has."""
    try:
        found = sorted(context.store.driver.list_layers())
    except OperationNotSupported:
        print("driver not supported")
        return 1
    if arguments.given("json"):
        print_json(found)
        return 0
    for layer_id in found:
        print(layer_id)
    return 0


def apply_diff_using_staging_dir(context: Context, arguments: Arguments) -> None:
    """Fill an empty layer with the files of a directory.

    The Go command packs the directory and hands the tar to its partial pulls, which unpack it in a staging
    directory and rename that into the layer's place. Whatever the layer had held is lost there; here a
    layer that holds something is refused.
    """
    from hostspec.archive.pack import pack_tree  # noqa: PLC0415 - listing needs none of it

    reference, directory = arguments.positionals
    if not os.path.isdir(directory):
        raise InvalidRequest(directory, "is no directory")
    layer = context.store.layer(reference)
    if next(context.store.changes(layer.id), None) is not None:
        raise InvalidRequest(
            f"layer {layer.id}", "is not empty; the directory would take the place of it all"
        )
    with pack_tree(directory, idmap=IdMap()) as tar:
        context.store.apply_diff(layer.id, tar)
