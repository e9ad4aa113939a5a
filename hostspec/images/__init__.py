"""Images in and out of a store: OCI layouts, root file systems."""

from hostspec.images.importing import import_image

__all__ = ["import_image"]
