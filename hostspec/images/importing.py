"""Making an image in a store from what people have: an OCI layout, a root directory, a tar."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hostspec.errors import Duplicate, HostspecError, InvalidRequest
from hostspec.images.documents import (
    LAYER_TYPES,
    UNCOMPRESSED,
    Descriptor,
    Manifest,
    diff_ids_of,
    digest_of,
    make_config,
    make_manifest,
    parse_manifest,
)
from hostspec.images.oci_layout import OciLayout
from hostspec.images.platforms import go_architecture

if TYPE_CHECKING:
    from hostspec.store import Image, Layer, Store
    from hostspec.values import ProgressCallback

__all__ = ["import_image"]

OCI_PREFIX = "oci:"


def import_image(
    store: Store,
    source: str,
    *,
    names: Sequence[str] = (),
    further_layers: Sequence[str] = (),
    squash: bool = False,
    progress: ProgressCallback | None = None,
) -> Image:
    """Make an image from ``source``.

    Layers that the store already has, on the same parent, are used again. Names are taken from the
    image that has them, as a pull does.

    Args:
        store: The store, open for writing.
        source: ``oci:DIR`` or ``oci:DIR:TAG``; or a root directory, or its tar in any compression.
        names: Names for the image.
        further_layers: Directories or tars, each a layer on top of a ``source`` that is not an OCI
            layout; ``.wh.NAME`` in them deletes.
        squash: Keep going where an owner cannot be set, as for an ordinary user.
        progress: Told how far each layer has come, in bytes.

    Returns:
        The image's record.

    Raises:
        InvalidRequest: ``source`` is none of these, or names no single image.
        InvalidArchive: It is broken. No image was made, and no layer is left.
        DigestMismatch: A part of it is not what its manifest promises. The same.
        DriverFailed: The operating system refused. The same.
    """
    if source.startswith(OCI_PREFIX) and further_layers:
        raise InvalidRequest("further layers", "can only be put on a root directory or tar")
    with _abandoned_on_error(store) as made:
        importing = _Importing(store, made, squash, progress)
        if source.startswith(OCI_PREFIX):
            return importing.oci_layout(source.removeprefix(OCI_PREFIX), names)
        return importing.root((source, *further_layers), names)


class _Importing(NamedTuple):
    """One image while it is made."""

    store: Store
    made: list[Layer]
    """The layers that this import has made, lowest first."""
    squash: bool
    progress: ProgressCallback | None

    def oci_layout(self, place: str, names: Sequence[str]) -> Image:
        """Make an image of one in a layout, ``DIR`` or ``DIR:TAG``."""
        directory, tag = _directory_and_tag(place)
        layout = OciLayout(directory)
        manifest = layout.manifest(tag)
        config = layout.blob(manifest.config)
        diff_ids = diff_ids_of(config, len(manifest.layers))
        top = None
        for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
            top = self._layer_of_blob(layout, descriptor, diff_id, top)
        return _record(self.store, manifest, config, top, names)

    def root(self, places: Sequence[str], names: Sequence[str]) -> Image:
        """Make an image of directories and tars, each a layer; manifest and configuration are ours."""
        layers: list[Layer] = []
        for place in places:
            with _layer_stream(place) as stream:
                layers.append(self._layer_of_root(stream, layers[-1] if layers else None))
        config = make_config(
            [layer.diff_digest or "" for layer in layers],
            architecture=go_architecture(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            history="hostspec import",
        )
        manifest = make_manifest(config, [_descriptor_of(layer) for layer in layers])
        return _record(self.store, parse_manifest(manifest), config, layers[-1], names)

    def _layer_of_blob(
        self, layout: OciLayout, descriptor: Descriptor, diff_id: str, parent: Layer | None
    ) -> Layer:
        parent_id = parent.id if parent else None
        found = self.store.find_layer(diff_id, parent_id)
        if found is not None:
            return found
        with layout.open_blob(descriptor) as blob:
            layer = self.store.import_layer(
                blob,
                parent_id,
                expected_digest=descriptor.digest,
                expected_diff_id=diff_id,
                squash=self.squash,
                progress=self.progress,
            )
        self.made.append(layer)
        return layer

    def _layer_of_root(self, stream: BinaryIO, parent: Layer | None) -> Layer:
        parent_id = parent.id if parent else None
        layer = self.store.import_layer(stream, parent_id, squash=self.squash, progress=self.progress)
        # What it is can only be told now that it has been read; an older one that is the same will do.
        older = self.store.find_layer(layer.diff_digest or "", parent_id)
        if older is not None and older.id != layer.id:
            self.store.delete_layer(layer.id)
            return older
        self.made.append(layer)
        return layer


def _directory_and_tag(place: str) -> tuple[str, str | None]:
    """Take ``DIR:TAG`` apart; a directory whose own name has a colon is recognised by being there."""
    if os.path.isdir(place):
        return place, None
    directory, colon, tag = place.rpartition(":")
    return (directory, tag) if colon else (place, None)


@contextmanager
def _layer_stream(place: str) -> Iterator[BinaryIO]:
    try:
        mode = os.stat(place).st_mode
    except OSError as error:
        raise InvalidRequest(place, f"cannot be imported: {error.strerror}") from error
    with ExitStack() as stack:
        if stat.S_ISDIR(mode):
            from hostspec.archive.pack import pack_tree  # noqa: PLC0415
            from hostspec.idmap import IdMap  # noqa: PLC0415

            yield stack.enter_context(pack_tree(place, idmap=IdMap()))
        else:
            yield stack.enter_context(open(place, "rb"))


def _descriptor_of(layer: Layer) -> Descriptor:
    """Describe a layer as a manifest does: as it came, or uncompressed where OCI has no type for that."""
    media_type = LAYER_TYPES.get(layer.compression)
    if media_type and layer.compressed_digest:
        return Descriptor(media_type, layer.compressed_digest, layer.compressed_size or 0, {}, {})
    return Descriptor(LAYER_TYPES[UNCOMPRESSED], layer.diff_digest or "", layer.diff_size or 0, {}, {})


def _record(
    store: Store, manifest: Manifest, config: bytes, top: Layer | None, names: Sequence[str]
) -> Image:
    """Record the image as containers/image does, so that podman knows it."""
    # The image's ID is the digest of its configuration: the same image always has the same one.
    digest = digest_of(manifest.raw)
    image_id = manifest.config.digest.partition(":")[2]
    with suppress(Duplicate):
        store.create_image(
            top.id if top else None,
            image_id=image_id,
            digest=digest,
            metadata="{}",
            big_data={
                manifest.config.digest: config,
                f"manifest-{digest}": manifest.raw,
                "manifest": manifest.raw,
            },
        )
    store.add_names(image_id, names)
    return store.image(image_id)


@contextmanager
def _abandoned_on_error(store: Store) -> Iterator[list[Layer]]:
    """Collect the layers that are made, and delete them again, the top one first, if the image is not."""
    made: list[Layer] = []
    try:
        yield made
    except BaseException:
        for layer in reversed(made):
            try:
                store.delete_layer(layer.id)
            except HostspecError:
                # Somebody else has built on it meanwhile, so it is theirs now.
                break
        raise
