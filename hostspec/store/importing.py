"""Making a layer of a tar stream, and unpacking one into a layer that exists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.store.filling import Making, make_layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.incoming import IncomingLayer
from hostspec.store.layers import check_parent, create_empty, draft_layer
from hostspec.store.mounting import shift_of
from hostspec.store.records import Layer
from hostspec.store.tar_split_files import NewTarSplit
from hostspec.values import ApplyOptions, CreateOptions

__all__ = ["LayerSource", "apply_diff", "import_layer"]

LayerSource = BinaryIO | str | os.PathLike[str]
"""A readable binary stream, or the path of a file."""


def import_layer(  # noqa: PLR0913 - as the method of Store has them
    root: GraphRoot,
    source: LayerSource,
    parent: str | None,
    *,
    layer_id: str | None = None,
    names: Sequence[str] = (),
    idmap: IdMap | None = None,
    expected_digest: str | None = None,
    expected_diff_id: str | None = None,
    options: CreateOptions | None = None,
) -> Layer:
    """Make a layer of a tar stream; see :meth:`hostspec.store.Store.import_layer`."""
    wanted = options or CreateOptions()
    draft, base = draft_layer(root, parent, layer_id=layer_id, names=names, idmap=idmap, options=wanted)

    with _opened(source) as stream, NewTarSplit(root.layout) as tar_split:

        def fill(layer: Layer) -> Layer:
            with IncomingLayer(
                stream,
                tar_split.file,
                expected_digest=expected_digest,
                expected_diff_id=expected_diff_id,
                progress=wanted.progress,
            ) as incoming:
                root.driver.apply_diff(
                    layer.id, incoming.stream, ApplyOptions(idmap=layer.idmap, squash=wanted.squash)
                )
                filled = incoming.finish(layer)
                if incoming.has_tar_split:
                    tar_split.seal()
                return filled

        return make_layer(
            root,
            Making(
                draft=draft,
                create=lambda layer: create_empty(root, layer, base, wanted._replace(progress=None)),
                check=lambda edits: check_parent(edits, base),
                options=wanted._replace(progress=None),  # told of bytes, not of files
                fill=fill,
                reads=(draft.parent,) if draft.parent else (),
                add_files=lambda layer: tar_split.publish(layer.id),
            ),
        )


def apply_diff(root: GraphRoot, reference: str, source: LayerSource) -> int:
    """Unpack a tar into a layer that exists; see :meth:`hostspec.store.Store.apply_diff`."""
    root.refuse_if_read_only()
    layers = root.layers.read()
    layer = layers.get(reference)
    layers.refuse_read_only(layer.id)
    _refuse_shifted(root, layer)
    with (
        root.occasions.holding(f"layer-{layer.id}"),
        _opened(source) as stream,
        NewTarSplit(root.layout) as tar_split,
    ):
        with IncomingLayer(stream, tar_split.file) as incoming:
            size = root.driver.apply_diff(layer.id, incoming.stream, ApplyOptions(idmap=layer.idmap))
            filled = incoming.finish(layer)
            if incoming.has_tar_split:
                tar_split.seal()
        _record_diff(root, filled, tar_split)
    return size


def _refuse_shifted(root: GraphRoot, layer: Layer) -> None:
    """Refuse to write beside the mount into a layer whose files have the IDs that a mount gives them."""
    for container in root.containers.read():
        if container.layer == layer.id and shift_of(layer, container):
            raise InvalidRequest(
                f"layer {layer.id}",
                f"belongs to container {container.id}, whose map is made when it is mounted; "
                "mount the container and write there",
            )


def _record_diff(root: GraphRoot, filled: Layer, tar_split: NewTarSplit) -> None:
    """Note in a layer's record what has been unpacked into it."""
    root.sync_data()
    with root.layers.writing() as layers:
        present = layers.get(filled.id)
        tar_split.publish(present.id)
        layers.put(
            present._replace(
                compressed_digest=filled.compressed_digest,
                compressed_size=filled.compressed_size,
                diff_digest=filled.diff_digest,
                diff_size=filled.diff_size,
                compression=filled.compression,
                uids=filled.uids,
                gids=filled.gids,
            )
        )
        layers.save()


@contextmanager
def _opened(source: LayerSource) -> Iterator[BinaryIO]:
    if not isinstance(source, (str, os.PathLike)):
        yield source
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; only opening it may fail like this
    except OSError as error:
        raise InvalidRequest(os.fspath(source), f"cannot be read: {error.strerror}") from error
    with file:
        yield file
