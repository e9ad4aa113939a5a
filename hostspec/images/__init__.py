"""Images in and out of a store: OCI layouts, docker-archives, root file systems, registries, other stores."""

from hostspec.images.exporting import ExportedImage, export_images
from hostspec.images.importing import import_image
from hostspec.images.registries import SkopeoFailed, pull, push
from hostspec.images.store_copy import copy_image

__all__ = [
    "ExportedImage",
    "SkopeoFailed",
    "copy_image",
    "export_images",
    "import_image",
    "pull",
    "push",
]
