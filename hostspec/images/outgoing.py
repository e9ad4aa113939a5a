"""An image of a store on its way out: its documents, its layers, and what was promised about them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hostspec.errors import DigestMismatch, InvalidArchive, StoreCorrupt
from hostspec.images.documents import (
    Manifest,
    diff_ids_of,
    encode,
    make_config,
    parse_json,
    parse_manifest,
)
from hostspec.images.platforms import go_architecture
from hostspec.store import Image, Layer, Store
from hostspec.values import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from hostspec.values import ProgressCallback

__all__ = ["Outgoing", "OutgoingLayer", "chain_of", "layer_tar", "outgoing", "with_diff_ids"]


class OutgoingLayer(NamedTuple):
    """One layer of an image."""

    record: Layer
    """What the store says of it."""
    diff_id: str | None
    """Digest that its tar has according to the image's configuration, or else to its record."""


class Outgoing(NamedTuple):
    """An image on its way out."""

    image: Image
    """What the store says of it."""
    layers: tuple[OutgoingLayer, ...]
    """Its layers, lowest first."""
    manifest: Manifest | None
    """Its manifest, where it has one that describes these layers."""
    config: bytes | None
    """Its configuration, where it has one."""

    def config_for(self, diff_ids: Sequence[str]) -> bytes:
        """Return the image's configuration for layers of these digests: its own where that says so.

        An image that was made of layers alone (``create-image``) gets one that says nothing more.
        """
        if self.config is None:
            return make_config(
                diff_ids,
                architecture=go_architecture(),
                created=self.image.created,
                history="hostspec create-image",
            )
        if tuple(diff_ids) == tuple(layer.diff_id for layer in self.layers):
            return self.config
        return with_diff_ids(self.config, diff_ids)


def outgoing(store: Store, reference: str) -> Outgoing:
    """Look up an image and all that belongs to it.

    Raises:
        Unknown: There is no such image.
        StoreCorrupt: A layer of it is missing.
        InvalidArchive: Its configuration is malformed, or does not fit its layers.
    """
    image = store.image(reference)
    chain = chain_of(store, image)
    manifest = _manifest(store, image)
    config = _config(store, image, manifest)
    diff_ids: Sequence[str | None] = [layer.diff_digest for layer in chain]
    if config is not None:
        diff_ids = diff_ids_of(config, len(chain))
    layers = tuple(map(OutgoingLayer, chain, diff_ids))
    fits = manifest is not None and len(manifest.layers) == len(layers)
    return Outgoing(image, layers, manifest if fits else None, config)


def chain_of(store: Store, image: Image) -> tuple[Layer, ...]:
    """Return the layers of an image, lowest first.

    Raises:
        StoreCorrupt: One is missing.
    """
    layers = {layer.id: layer for layer in store.layers()}
    chain: list[Layer] = []
    wanted = image.layer
    while wanted:
        layer = layers.pop(wanted, None)
        if layer is None:
            raise StoreCorrupt(store.root, f"image {image.id} needs layer {wanted}, which is missing")
        chain.append(layer)
        wanted = layer.parent
    return tuple(reversed(chain))


def with_diff_ids(config: bytes, diff_ids: Sequence[str]) -> bytes:
    """Return a configuration that names layers of other digests."""
    document = parse_json(config, "image configuration")
    document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    return encode(document)


@contextmanager
def layer_tar(
    store: Store, layer: OutgoingLayer, *, repack: bool = False, progress: ProgressCallback | None = None
) -> Iterator[DigestedStream]:
    """Give a layer's tar; when the block has read it to its end, its digest is verified.

    Args:
        store: The store.
        layer: The layer.
        repack: Take the tar as it comes, whatever its digest.
        progress: Told how many bytes have been read.

    Raises:
        DigestMismatch: The tar is not the one that the layer was made from.
    """
    with store.diff(layer.record.id, layer.record.parent) as stream:
        algorithm = (layer.diff_id or "sha256").partition(":")[0]
        digested = DigestedStream(stream, algorithm, layer.record.diff_size, progress)
        yield digested
        digested.drain()
    if layer.diff_id is not None and not repack and digested.digest != layer.diff_id:
        raise DigestMismatch(layer.diff_id, digested.digest, f"layer {layer.record.id}")


class DigestedStream(io.RawIOBase, BinaryIO):
    """A stream that is digested while it is read."""

    def __init__(
        self, source: BinaryIO, algorithm: str, total: int | None, progress: ProgressCallback | None
    ) -> None:
        super().__init__()
        self._source = source
        self._digest = hashlib.new(algorithm)
        self._done = 0
        self._total = total if total is not None and total > 0 else None
        self._progress = progress

    @property
    def digest(self) -> str:
        return f"{self._digest.name}:{self._digest.hexdigest()}"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._digest.update(data)
        self._done += len(data)
        if self._progress is not None:
            self._progress(Progress(self._done, self._total, "bytes"))
        return len(data)

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def _manifest(store: Store, image: Image) -> Manifest | None:
    for key in ("manifest", f"manifest-{image.digest}"):
        if key in image.big_data:
            try:
                return parse_manifest(store.big_data(image, key))
            except InvalidArchive:
                continue  # an index, or of a kind that nobody writes any more: made anew from the layers
    return None


def _config(store: Store, image: Image, manifest: Manifest | None) -> bytes | None:
    keys = [manifest.config.digest] if manifest is not None else []
    for key in (*keys, f"sha256:{image.id}"):
        if key in image.big_data:
            return store.big_data(image, key)
    return None
