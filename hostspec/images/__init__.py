"""Images in and out of a store: OCI layouts, docker-archives, root file systems, registries, other stores."""

# Loaded when it is asked for: starting a container reads an image's documents, and nothing else of this.
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "ExportedImage": "exporting",
    "SkopeoFailed": "registries",
    "copy_image": "store_copy",
    "export_images": "exporting",
    "import_image": "importing",
    "pull": "registries",
    "push": "registries",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
