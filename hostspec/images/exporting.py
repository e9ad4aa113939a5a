"""Writing images of a store where others can read them: OCI layouts and docker-archives.

A layer comes out as the tar that it was made from, so its digest is the one that the image's
configuration promises, and the image keeps its ID. Compressed layers are compressed anew. Where that
gives other bytes than the original, the manifest is written anew, with the digests of what is really
there; where it does not, manifest and digest are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from hostspec.archive.compression import Compression
from hostspec.errors import InvalidRequest
from hostspec.images.docker_archive_writer import DockerArchiveWriter
from hostspec.images.documents import (
    CONFIG_TYPE,
    LAYER_TYPES,
    MANIFEST_TYPE,
    Descriptor,
    digest_of,
    encode,
    make_manifest,
    parse_json,
)
from hostspec.images.new_files import new_file_at
from hostspec.images.oci_layout_writer import OciLayoutWriter, WrittenBlob
from hostspec.images.outgoing import Outgoing, OutgoingLayer, layer_tar, outgoing
from hostspec.images.places import DOCKER_ARCHIVE, OCI, directory_and_tag, file_and_reference
from hostspec.store.references import LOCAL, normalised, parse_reference

if TYPE_CHECKING:
    from hostspec.store import Image, Store
    from hostspec.values import ProgressCallback

__all__ = ["ExportedImage", "export_images"]

_NEITHER = "is neither oci:DIR[:TAG] nor docker-archive:FILE[:NAME]; hostspec push knows more"


class ExportedImage(NamedTuple):
    """An image that was written."""

    image: Image
    """The image in the store."""
    digest: str
    """Digest of what identifies it there: of its manifest in a layout, of its configuration in an archive."""
    repacked: tuple[str, ...]
    """IDs of the layers that could not be given back as they came, so that the image has another ID there."""


def export_images(
    store: Store,
    references: Sequence[str],
    destination: str,
    *,
    compression: Compression | None = None,
    repack: bool = False,
    progress: ProgressCallback | None = None,
) -> Sequence[ExportedImage]:
    """Write images to a layout or an archive.

    Args:
        store: The store.
        references: The images, at least one; one that is named twice is written once.
        destination: ``oci:DIR[:TAG]``, made where it is not there, else added to; or
            ``docker-archive:FILE[:NAME]``, which replaces a file of that name. Without a tag, or with
            several images, each has its own names.
        compression: How layers in a layout are compressed; by default each as its manifest says.
        repack: Allow layers that cannot be given back as they came. Such an image gets new digests.
        progress: Told how far each layer has come, in bytes.

    Raises:
        Unknown: There is no such image.
        InvalidRequest: ``destination`` is neither of these.
        DigestMismatch: A layer is no longer the one that the image promises, without ``repack``. Nothing
            is at ``destination`` that was not there before, but for blobs in a layout.
        OSError: It cannot be written; the same.
    """
    named = (outgoing(store, reference) for reference in references)
    images = list({each.image.id: each for each in named}.values())
    if not images:
        raise InvalidRequest(destination, "needs at least one image")
    if destination.startswith(OCI):
        directory, tag = directory_and_tag(destination.removeprefix(OCI))
        _refuse_one_name_for_several(destination, tag, images)
        layout = OciLayoutWriter(directory)
        export = _LayoutExport(store, layout, compression, repack, progress)
        return [export.image(each, tag) for each in images]
    if destination.startswith(DOCKER_ARCHIVE):
        path, name = file_and_reference(destination.removeprefix(DOCKER_ARCHIVE))
        _refuse_one_name_for_several(destination, name, images)
        if compression not in {None, Compression.NONE}:
            raise InvalidRequest(destination, "takes no compression: layers in a docker-archive have none")
        with new_file_at(path) as file:
            archive = DockerArchiveWriter(file)
            written = [_archive(store, archive, each, name, repack, progress) for each in images]
            archive.finish()
            return written
    raise InvalidRequest(destination, _NEITHER)


class _LayoutExport(NamedTuple):
    """Images on their way to a layout."""

    store: Store
    layout: OciLayoutWriter
    compression: Compression | None
    repack: bool
    progress: ProgressCallback | None

    def image(self, going: Outgoing, tag: str | None) -> ExportedImage:
        """Write an image and list it."""
        promised = going.manifest.layers if going.manifest else (None,) * len(going.layers)
        layers = [self._layer(*each) for each in zip(going.layers, promised, strict=True)]
        config = going.config_for([layer.diff_id for layer in layers])
        self.layout.add_document(config)
        manifest = _manifest(going, config, [layer.descriptor for layer in layers])
        written = self.layout.add_document(manifest)
        descriptor = Descriptor(MANIFEST_TYPE, written.digest, written.size, {}, {})
        for each in (tag,) if tag else going.image.names or (None,):
            self.layout.list_image(descriptor, each)
        return ExportedImage(going.image, written.digest, _repacked(going, [each.diff_id for each in layers]))

    def _layer(self, layer: OutgoingLayer, promised: Descriptor | None) -> _WrittenLayer:
        compression = self.compression
        if compression is None:
            compression = _compression_of(promised, layer.diff_id)
        there = self._promised_blob(layer, promised, compression)
        if there is not None and layer.diff_id is not None:
            return _WrittenLayer(layer.diff_id, _described(there, compression))
        with layer_tar(self.store, layer, repack=self.repack, progress=self.progress) as tar:
            blob = self.layout.add(tar, compression)
        return _WrittenLayer(tar.digest, _described(blob, compression))

    def _promised_blob(
        self, layer: OutgoingLayer, promised: Descriptor | None, compression: Compression
    ) -> WrittenBlob | None:
        """Return the blob that the manifest promises, if it lies in the layout from an earlier time."""
        if promised is None or compression is not _compression_of(promised, layer.diff_id):
            return None
        there = WrittenBlob(promised.digest, promised.size)
        return there if self.layout.has(there) else None


class _WrittenLayer(NamedTuple):
    """A layer in a layout."""

    diff_id: str
    descriptor: Descriptor


def _archive(
    store: Store,
    archive: DockerArchiveWriter,
    going: Outgoing,
    name: str | None,
    repack: bool,  # noqa: FBT001
    progress: ProgressCallback | None,
) -> ExportedImage:
    diff_ids = []
    for layer in going.layers:
        with layer_tar(store, layer, repack=repack, progress=progress) as tar:
            diff_ids.append(archive.add_layer(tar))
    config = going.config_for(diff_ids)
    archive.add_image(config, diff_ids, [_tagged(name)] if name else list(_tags(going.image.names)))
    return ExportedImage(going.image, digest_of(config), _repacked(going, diff_ids))


def _manifest(going: Outgoing, config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """Return the image's own manifest where it is true of what was written, or else one that is."""
    own = going.manifest
    if own is None:
        return make_manifest(config, layers)
    document = parse_json(own.raw, "manifest")
    if document.get("mediaType", MANIFEST_TYPE) != MANIFEST_TYPE or own.config.media_type != CONFIG_TYPE:
        # Docker's, which has no place in an OCI layout; or something that is no container image.
        return make_manifest(config, layers)
    same = [old.digest == new.digest for old, new in zip(own.layers, layers, strict=True)]
    if all(same) and own.config.digest == digest_of(config):
        return own.raw
    # What a manifest says of its layers beside their digests is kept for those that are the same.
    listed = cast(list[object], document["layers"])
    document["layers"] = [
        old if is_same else new.as_json() for old, new, is_same in zip(listed, layers, same, strict=True)
    ]
    document["config"] = Descriptor(CONFIG_TYPE, digest_of(config), len(config), {}, {}).as_json()
    return encode(document)


def _compression_of(promised: Descriptor | None, diff_id: str | None) -> Compression:
    """Return how a manifest says that a layer is compressed."""
    # What podman writes for an image that it loaded has Docker's type for gzip whether that is true or not.
    if promised is None or promised.digest == diff_id:
        return Compression.NONE
    if promised.media_type.endswith("gzip"):
        return Compression.GZIP
    return Compression.ZSTD if promised.media_type.endswith("zstd") else Compression.NONE


def _described(blob: WrittenBlob, compression: Compression) -> Descriptor:
    return Descriptor(LAYER_TYPES[compression], blob.digest, blob.size, {}, {})


def _repacked(going: Outgoing, diff_ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        layer.record.id
        for layer, diff_id in zip(going.layers, diff_ids, strict=True)
        if layer.diff_id not in {None, diff_id}
    )


def _tags(names: Iterable[str]) -> Iterable[str]:
    """Yield the names that an archive can hold: in full, and without those that are digests."""
    for name in names:
        try:
            full = normalised(name, LOCAL)
        except InvalidRequest:
            continue  # the store takes any text for a name
        if parse_reference(full).digest is None:
            yield full


def _tagged(name: str) -> str:
    """Return a name as it was given, with a tag.

    Raises:
        InvalidRequest: It is no name, or has a digest.
    """
    found = parse_reference(name)
    if found.digest is not None:
        raise InvalidRequest(repr(name), "cannot name an image in an archive: it has a digest")
    return str(found._replace(tag=found.tag or "latest"))


def _refuse_one_name_for_several(destination: str, name: str | None, images: Sequence[Outgoing]) -> None:
    if name and len(images) > 1:
        raise InvalidRequest(destination, "names one image, but several are to be written")
