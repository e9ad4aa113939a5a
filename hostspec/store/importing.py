"""Making a layer of a tar stream, and unpacking one into a layer that exists."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from hostspec.errors import DriverFailed, InvalidRequest, failing
from hostspec.idmap import IdMap
from hostspec.store.filling import Making, make_layer
from hostspec.store.format.records import Layer
from hostspec.store.graph_root import GraphRoot
from hostspec.store.incoming import IncomingLayer
from hostspec.store.layers import check_parent, create_empty, draft_layer
from hostspec.store.mounting import shift_of
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
                tree_is_empty=base is None,
                expected_digest=expected_digest,
                expected_diff_id=expected_diff_id,
                progress=wanted.progress,
            ) as incoming:
                with _saying_who_may_give_files_away(root):
                    root.driver.apply_diff(
                        layer.id, incoming.stream, ApplyOptions(idmap=layer.idmap, squash=wanted.squash)
                    )
                filled = incoming.finish(layer)
                _seal(root, tar_split, incoming, filled)
                if wanted.squash:
                    _say_what_is_squashed(filled)
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


def _seal(root: GraphRoot, tar_split: NewTarSplit, incoming: IncomingLayer, layer: Layer) -> None:
    """Keep a tar-split file if it gives the tar back that a layer was filled with."""
    if not incoming.has_tar_split:
        return
    if incoming.needs_proof:
        with root.driver.mounted(layer.id) as tree:
            if not tar_split.gives_back(layer, tree):
                return
    tar_split.seal()


@contextmanager
def _saying_who_may_give_files_away(root: GraphRoot) -> Iterator[None]:
    """Tell an ordinary user, whom the operating system refuses it, how else to give files their owners."""
    try:
        yield
    except DriverFailed as error:
        cause = error.__cause__
        if os.geteuid() == 0 or not isinstance(cause, OSError) or cause.errno != errno.EPERM:
            raise
        way_out = (
            "only root may give files to others. Do this by hostspec unshare, or with the option "
            f"{root.layout.driver}.ignore_chown_errors=true, with which all files belong to this user"
        )
        raise DriverFailed(error.operation, f"{cause.strerror}: {way_out}") from cause


def _say_what_is_squashed(layer: Layer) -> None:
    """Warn of the owners that this process could not give to a layer's files."""
    from hostspec.store.copies.squashing import Owners, assignable_ids, warn_of_squashing  # noqa: PLC0415 - seldom

    owners = Owners(frozenset(layer.uids), frozenset(layer.gids), complete=True)
    outside = owners.outside(layer.idmap)
    ours = assignable_ids()
    if not layer.idmap and ours:
        outside = owners.outside(ours)
    if outside:
        warn_of_squashing(f"layer {layer.id}: owners outside the ID map {layer.idmap or ours}", outside)


def apply_diff(root: GraphRoot, reference: str, source: LayerSource) -> int:
    """Unpack a tar into a layer that exists; see :meth:`hostspec.store.Store.apply_diff`."""
    root.refuse_if_read_only()
    layers = root.layers.read()
    layer = layers.get(reference)
    layers.refuse_read_only(layer.id)
    with (
        root.occasions.holding(f"layer-{layer.id}"),
        _opened(source) as stream,
        NewTarSplit(root.layout) as tar_split,
    ):
        with IncomingLayer(stream, tar_split.file, tree_is_empty=False) as incoming:
            size = _unpacked(root, layer, incoming.stream)
            filled = incoming.finish(layer)
            _seal(root, tar_split, incoming, filled)
        _record_diff(root, filled, tar_split)
    return size


def _unpacked(root: GraphRoot, layer: Layer, stream: BinaryIO) -> int:
    """Unpack into a layer; through its mount where that gives the files their IDs, as the mapped root."""
    owner = next((each for each in root.containers.read() if each.layer == layer.id), None)
    shift = shift_of(layer, owner)
    if not shift:
        return root.driver.apply_diff(layer.id, stream, ApplyOptions(idmap=layer.idmap))
    from hostspec.archive.unpack import unpack  # noqa: PLC0415 - seldom needed
    from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415
    from hostspec.kernel.file_identity import making_files_as  # noqa: PLC0415

    with (
        root.driver.mounted(layer.id, idmap=shift, read_only=False) as tree,
        failing(f"apply a diff to layer {layer.id}"),
        making_files_as(*shift.root()),
    ):
        return unpack(stream, tree, idmap=shift, whiteouts=WhiteoutForm.PLAIN)


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
