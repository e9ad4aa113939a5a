"""Copying an image from one store to another, whatever drivers they have.

Each layer goes as the tar that it was made from, through a pipe and never through a file, and its digest
is verified before it is seen in the target. A layer that the target has already is not copied.
The image is recorded last, in one step. So whoever looks at the target sees the whole image or none; and
if the process is killed, the next attempt goes on with the layers that have arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hostspec.errors import Duplicate
from hostspec.images.layer_reuse import abandoned_on_error, obtain_layer
from hostspec.images.outgoing import OutgoingLayer, chain_of, layer_tar
from hostspec.store.references import LOCAL, normalised

if TYPE_CHECKING:
    from hostspec.store import Image, Layer, Store
    from hostspec.values import ProgressCallback

__all__ = ["copy_image"]


def copy_image(
    source: Store,
    reference: str,
    target: Store,
    *,
    names: Sequence[str] | None = None,
    squash: bool = False,
    progress: ProgressCallback | None = None,
) -> Image:
    """Copy an image to another store; threads and processes may do so at the same time.

    The copy has the same ID, digests, names, metadata and big data. Its mapped copies are not
    copied: the target makes its own when a container asks for them.

    Args:
        source: The store that has the image; it may be open for reading only.
        reference: The image.
        target: The store that is to have it, of any driver.
        names: Names in the target instead of those in the source, completed as podman does; they are
            taken from whoever has them.
        squash: Keep going where an owner cannot be set.
        progress: Told how far each layer has come, in bytes.

    Returns:
        The image's record in the target.

    Raises:
        InvalidRequest: A name is none.
        Unknown: There is no such image, or it was removed from the source meanwhile.
        StoreCorrupt: A layer of it is missing.
        DigestMismatch: A layer is no longer what the source says that it is.
        Duplicate: The target has another image of that ID.
        DriverFailed: The operating system refused. Whichever of these: no image was made, and no layer
            that this call made is left.
    """
    wanted = None if names is None else [normalised(name, LOCAL) for name in names]
    image = source.image(reference)
    chain = chain_of(source, image)
    present = _present(target, image, chain)
    if present is None:
        with abandoned_on_error(target) as made:
            copying = _Copying(source, target, made, squash, progress)
            top: Layer | None = None
            for layer in chain:
                top = copying.layer(layer, top)
            copying.record(image, top)
    target.add_names(image.id, image.names if wanted is None else wanted)
    return target.image(image.id)


class _Copying(NamedTuple):
    """One image while it is copied."""

    source: Store
    target: Store
    made: list[Layer]
    """Layers that this copy has made, lowest first."""
    squash: bool
    progress: ProgressCallback | None

    def layer(self, layer: Layer, parent: Layer | None) -> Layer:
        """Copy a layer onto another in the target, or find it there."""
        parent_id = parent.id if parent is not None else None
        going = OutgoingLayer(layer, layer.diff_digest)

        def make(layer_id: str | None) -> Layer:
            with layer_tar(self.source, going, progress=self.progress) as tar:
                return self.target.import_layer(
                    tar,
                    parent_id,
                    layer_id=layer_id,
                    expected_diff_id=going.diff_id,
                    mount_label=layer.mount_label,
                    squash=self.squash,
                )

        obtained, is_new = obtain_layer(self.target, going.diff_id, parent_id, make)
        if is_new:
            self.made.append(obtained)
        return obtained

    def record(self, image: Image, top: Layer | None) -> None:
        """Record the image in the target.

        Raises:
            Duplicate: There is one of that ID meanwhile, and it is another one.
        """
        try:
            self.target.create_image(
                top.id if top is not None else None,
                image_id=image.id,
                digest=image.digest,
                metadata=image.metadata,
                created=image.created,
                big_data={key: self.source.big_data(image, key) for key in image.big_data},
            )
        except Duplicate:
            if self.target.image(image.id).layer != (top.id if top is not None else None):
                raise


def _present(target: Store, image: Image, chain: Sequence[Layer]) -> Image | None:
    """Return the target's image of the same ID, if it has one.

    Raises:
        Duplicate: It has one, of other content.
    """
    present = next((each for each in target.images() if each.id == image.id), None)
    if present is None:
        return None
    there = chain_of(target, present)
    same = len(there) == len(chain) and all(map(_may_be_the_same, there, chain))
    # A layer that was never imported has no digest; then the image's age must do.
    known = all(layer.diff_digest for layer in (*there, *chain))
    if not same or not (known or present.created == image.created):
        raise Duplicate("ID", image.id)
    return present


def _may_be_the_same(one: Layer, other: Layer) -> bool:
    return one.diff_digest == other.diff_digest or None in {one.diff_digest, other.diff_digest}
