"""Methods of the store that act on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.store.format.records import Image
    from hostspec.store.graph_root import GraphRoot

__all__ = ["ImageMethods"]


class ImageMethods:
    """Images: find, make and remove them."""

    _root: GraphRoot

    def images(self) -> Sequence[Image]:
        """Return all images, in the order in which they were made."""
        return tuple(self._root.images.read())

    def image(self, reference: str) -> Image:
        """Return one image.

        Raises:
            Unknown: There is none.
        """
        return self._root.images.read().get(reference)

    def has_image(self, reference: str) -> bool:
        """Tell whether there is such an image."""
        return self._root.images.read().find(reference) is not None

    def images_by_digest(self, digest: str) -> Sequence[Image]:
        """Return the images that have that digest, their own or one of their manifests'."""
        return tuple(image for image in self._root.images.read() if digest in image.digests)

    def create_image(
        self,
        top_layer: str | None = None,
        *,
        image_id: str | None = None,
        names: Sequence[str] = (),
        digest: str | None = None,
        metadata: str = "",
        created: str | None = None,
        big_data: Mapping[str, bytes] | None = None,
    ) -> Image:
        """Record an image.

        Args:
            top_layer: Reference to its top layer, or ``None`` for an image without files.
            image_id: Its ID; random by default.
            names: Its names.
            digest: Its digest; by default that of its first manifest.
            metadata: Any text.
            created: When it was made, RFC 3339; now by default.
            big_data: Items to keep with it; those whose keys begin with ``manifest`` are manifests.

        Returns:
            Its record.

        Raises:
            Unknown: There is no such layer.
            Duplicate: The ID or a name is taken.
            InvalidRequest: The ID is no file name, the digest no digest, or a key has no file name.
        """
        from hostspec.store.images import create_image

        return create_image(
            self._root,
            top_layer,
            image_id=image_id,
            names=names,
            digest=digest,
            metadata=metadata,
            created=created,
            big_data=big_data,
        )

    def image_size(self, reference: str) -> int:
        """Return the bytes in an image's layers, mapped copies included, and in its big data.

        Raises:
            Unknown: There is no such image.
        """
        from hostspec.store.content import image_size

        return image_size(self._root, reference)

    def delete_image(self, reference: str, *, dry_run: bool = False) -> Sequence[str]:
        """Remove an image, its mapped copies, its top layer, and parents that nothing else needs.

        Args:
            reference: To the image.
            dry_run: Only say which layers would go.

        Returns:
            IDs of the removed layers, in the order in which they went.

        Raises:
            Unknown: There is no such image.
            InUse: A container was made from it.
            DriverFailed: A mount of one of the layers is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_image

        return delete_image(self._root, reference, dry_run=dry_run)
