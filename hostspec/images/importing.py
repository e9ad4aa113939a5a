"""Making an image in a store from what people have: a layout, an archive, a root directory, a tar."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hostspec.archive.compression import decompressed
from hostspec.errors import DigestMismatch, Duplicate, InvalidRequest
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
from hostspec.images.layer_reuse import abandoned_on_error, obtain_layer
from hostspec.images.platforms import go_architecture
from hostspec.images.sources import ImageSource, NamedSource, image_source
from hostspec.store.references import LOCAL, normalised

if TYPE_CHECKING:
    from hostspec.store import Image, Layer, Store
    from hostspec.values import ProgressCallback

__all__ = ["import_image"]

_PIECE = 1 << 20


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
        source: ``oci:DIR[:TAG]``; ``oci-archive:FILE[:TAG]``; ``docker-archive:FILE[:NAME]`` or
            ``docker-archive:FILE:@N``; or the path of a root directory, of its tar, or of an archive of
            one image. Files may be compressed in any way.
        names: Names for the image, completed as podman does (``busy`` becomes ``localhost/busy:latest``);
            by default none, or those that a docker-archive says.
        further_layers: Directories or tars, each a layer on top of a root directory or its tar;
            ``.wh.NAME`` in them deletes.
        squash: Keep going where an owner cannot be set, as for an ordinary user.
        progress: Told how far each layer has come, in bytes.

    Returns:
        The image's record.

    Raises:
        InvalidRequest: ``source`` is none of these, or names no single image; or a name is none.
        InvalidArchive: It is broken. No image was made, and no layer is left.
        DigestMismatch: A part of it is not what its manifest promises. The same.
        DriverFailed: The operating system refused. The same.
    """
    names = [normalised(name, LOCAL) for name in names]
    with abandoned_on_error(store) as made, image_source(source) as found:
        importing = _Importing(store, made, squash, progress)
        if found is None:
            return importing.root((source, *further_layers), names)
        if further_layers:
            raise InvalidRequest("further layers", "can only be put on a root directory or its tar")
        return importing.image(found, names)


class _Importing(NamedTuple):
    """One image while it is made."""

    store: Store
    made: list[Layer]
    """The layers that this import has made, lowest first."""
    squash: bool
    progress: ProgressCallback | None

    def image(self, found: NamedSource, names: Sequence[str]) -> Image:
        """Make an image of one that has its manifest and configuration."""
        source, reference = found
        manifest = source.manifest(reference)
        config = source.blob(manifest.config)
        diff_ids = diff_ids_of(config, len(manifest.layers))
        top = None
        for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
            top = self._layer_of_blob(source, descriptor, diff_id, top)
        return _record(self.store, manifest, config, top, names or source.names(reference))

    def root(self, places: Sequence[str], names: Sequence[str]) -> Image:
        """Make an image of directories and tars, each a layer; manifest and configuration are ours."""
        layers: list[Layer] = []
        for place in places:
            layers.append(self._layer_of_root(place, layers[-1] if layers else None))
        config = make_config(
            [layer.diff_digest or "" for layer in layers],
            architecture=go_architecture(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            history="hostspec import",
        )
        manifest = make_manifest(config, [_descriptor_of(layer) for layer in layers])
        return _record(self.store, parse_manifest(manifest), config, layers[-1], names)

    def _layer_of_blob(
        self, source: ImageSource, descriptor: Descriptor, diff_id: str, parent: Layer | None
    ) -> Layer:
        def make(layer_id: str | None) -> Layer:
            with source.open_blob(descriptor) as blob:
                return self._import(blob, parent, layer_id, diff_id, descriptor.digest)

        return self._obtain(diff_id, parent, make)

    def _layer_of_root(self, place: str, parent: Layer | None) -> Layer:
        def make(layer_id: str | None) -> Layer:
            with _layer_stream(place) as stream:
                return self._import(stream, parent, layer_id, diff_id)

        # Read once before: a layer that is there need not be unpacked, and a new one gets the ID
        # that podman would give it.
        diff_id = _digest_if_repeatable(place)
        try:
            return self._obtain(diff_id, parent, make)
        except DigestMismatch:
            diff_id = None  # a directory in which somebody is at work
            return self._obtain(diff_id, parent, make)

    def _obtain(
        self, diff_id: str | None, parent: Layer | None, make: Callable[[str | None], Layer]
    ) -> Layer:
        layer, is_new = obtain_layer(self.store, diff_id, parent.id if parent else None, make)
        if is_new:
            self.made.append(layer)
        return layer

    def _import(
        self,
        stream: BinaryIO,
        parent: Layer | None,
        layer_id: str | None,
        diff_id: str | None,
        digest: str | None = None,
    ) -> Layer:
        return self.store.import_layer(
            stream,
            parent.id if parent else None,
            layer_id=layer_id,
            expected_digest=digest,
            expected_diff_id=diff_id,
            squash=self.squash,
            progress=self.progress,
        )


def _digest_if_repeatable(place: str) -> str | None:
    """Return the digest of what is to be imported, uncompressed, unless it can be read only once."""
    if not os.path.isfile(place) and not os.path.isdir(place):
        return None
    sha256 = hashlib.sha256()
    with _layer_stream(place) as stream:
        content = decompressed(stream)
        while piece := content.read(_PIECE):
            sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


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
