"""Reading what ``docker save`` and ``podman save`` write: a tar of layers, configurations and a list.

``manifest.json`` lists the images, each with the names of its configuration and of its layers in the
tar. Archives from before 2016 (Docker 1.10) have none: there, ``repositories`` names the top layer of each
image, and a file ``ID/json`` for each layer names its parent. hostspec reads the former.

Source: Docker image specification 1.2 (``image/spec/v1.2.md`` of moby).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, cast

from hostspec.archive.compression import Compression, decompressed
from hostspec.errors import InvalidArchive, InvalidRequest
from hostspec.images.archive_members import ArchiveMembers
from hostspec.images.documents import Descriptor, Manifest, diff_ids_of, digest_of, encode
from hostspec.store.references import LOCAL, normalised

__all__ = ["LIST", "ArchivedImage", "DockerArchive"]

LIST = "manifest.json"
"""The list of images."""
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_COPY_SIZE = 1 << 20


class ArchivedImage(NamedTuple):
    """One image in an archive."""

    config: str
    """Name of its configuration in the tar."""
    tags: tuple[str, ...]
    """Its names."""
    layers: tuple[str, ...]
    """Names of its layers in the tar, lowest first."""


class DockerArchive:
    """An archive of images, for reading.

    Its layers are taken as if none were compressed: that is what the digests in the configuration are of.
    """

    def __init__(self, members: ArchiveMembers) -> None:
        """Read the list in an opened archive.

        Args:
            members: The tar; it is left open.

        Raises:
            InvalidArchive: It is no such archive, or broken.
        """
        self._members = members
        self._places: dict[str, str] = {}
        self.images = _parse_list(members)

    def image(self, reference: str | None = None) -> ArchivedImage:
        """Return one of the images.

        Args:
            reference: One of its names, or ``@N`` for the one in that place, counted from 0; not
                needed where there is only one.

        Raises:
            InvalidRequest: There is no such image, or several and no reference to tell which.
        """
        found = [image for place, image in enumerate(self.images) if _matches(image, place, reference)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(
            f"@{place} {' '.join(image.tags)}".rstrip() for place, image in enumerate(self.images)
        )
        problem = "has several images" if found else f"has no image {reference or ''}".rstrip()
        choices = f"say docker-archive:FILE:NAME or docker-archive:FILE:@N (images: {known or 'none'})"
        raise InvalidRequest(f"docker-archive:{self._members.path}", f"{problem}; {choices}")

    def manifest(self, reference: str | None = None) -> Manifest:
        """Return a manifest for one of the images, the same as podman makes for it.

        Raises:
            InvalidRequest: As for :meth:`image`.
            InvalidArchive: Its configuration is malformed, or something is missing.
        """
        image = self.image(reference)
        config = self._members.document(image.config)
        config_descriptor = Descriptor(DOCKER_CONFIG, digest_of(config), len(config), {}, {})
        self._places[config_descriptor.digest] = image.config
        layers = []
        for name, diff_id in zip(image.layers, diff_ids_of(config, len(image.layers)), strict=True):
            layers.append(Descriptor(DOCKER_LAYER, diff_id, self._uncompressed_size(name), {}, {}))
            self._places[diff_id] = name
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _as_docker_writes(config_descriptor),
            "layers": [_as_docker_writes(layer) for layer in layers],
        }
        return Manifest(encode(document), config_descriptor, tuple(layers))

    def names(self, reference: str | None = None) -> Sequence[str]:
        """Return the names of one of the images, in full, as podman loads it.

        Raises:
            InvalidRequest: As for :meth:`image`.
        """
        return [normalised(tag) for tag in self.image(reference).tags]

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return the configuration that a manifest of this archive names.

        Raises:
            InvalidArchive: It is missing.
        """
        return self._members.document(self._place(descriptor))

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a layer that a manifest of this archive names; checking it is left to the reader.

        Raises:
            InvalidArchive: It is missing.
        """
        return cast(
            BinaryIO, io.BufferedReader(decompressed(self._members.open(self._place(descriptor))), _COPY_SIZE)
        )

    def _place(self, descriptor: Descriptor) -> str:
        try:
            return self._places[descriptor.digest]
        except KeyError:
            raise InvalidArchive("is missing from the archive", descriptor.digest) from None

    def _uncompressed_size(self, name: str) -> int:
        with self._members.open(name) as file:
            content = decompressed(file)
            if content.compression is Compression.NONE:
                return self._members.size(name)
            size = 0
            while piece := content.read(_COPY_SIZE):
                size += len(piece)
            return size


def _matches(image: ArchivedImage, place: int, reference: str | None) -> bool:
    if reference is None:
        return True
    if reference.startswith("@"):
        return reference == f"@{place}"
    # What podman saved under a name without a domain is called localhost/NAME in the archive.
    wanted = {normalised(reference), normalised(reference, LOCAL)}
    return not wanted.isdisjoint(map(normalised, image.tags))


def _parse_list(members: ArchiveMembers) -> tuple[ArchivedImage, ...]:
    if LIST not in members:
        old = "; a Docker older than 1.10 wrote it: load it there and save it again"
        raise InvalidArchive(f"is not there{old if 'repositories' in members else ''}", LIST)
    try:
        found = json.loads(members.document(LIST))
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"is not JSON: {error}", LIST) from error
    if not isinstance(found, list):
        raise InvalidArchive("is not a list of images", LIST)
    return tuple(_parse_image(each) for each in found)


def _parse_image(document: object) -> ArchivedImage:
    if not isinstance(document, dict) or not isinstance(document.get("Config"), str):
        raise InvalidArchive("has an image without a configuration", LIST)
    return ArchivedImage(
        document["Config"], _parse_names(document, "RepoTags"), _parse_names(document, "Layers")
    )


def _parse_names(document: dict[str, object], key: str) -> tuple[str, ...]:
    found = document.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArchive(f"has an image whose {key} are no list of names", LIST)
    return tuple(found)


def _as_docker_writes(descriptor: Descriptor) -> dict[str, object]:
    """Write a descriptor in Docker's order, so that the manifest has the digest that podman gives it."""
    return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest}
