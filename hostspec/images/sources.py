"""Opening what images are imported from, however it is named, or recognised by what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, Protocol

from hostspec.errors import InvalidArchive
from hostspec.images.archive_members import ArchiveMembers, first_name
from hostspec.images.docker_archive import LIST, DockerArchive
from hostspec.images.documents import Descriptor, Manifest
from hostspec.images.oci_layout import MARKER, OciLayout
from hostspec.images.places import (
    DOCKER_ARCHIVE,
    OCI,
    OCI_ARCHIVE,
    directory_and_tag,
    file_and_reference,
)

__all__ = ["ImageSource", "NamedSource", "image_source"]

# How the first name in an archive of images looks; no root file system begins like this. So only
# what begins like this is looked at as a whole.
_FIRST_NAME = re.compile(
    r"(sha256:)?[0-9a-f]{64}(\.(json|tar)|/.*)?|blobs(/.*)?|[a-z-]+\.json|oci-layout|repositories"
)


class ImageSource(Protocol):
    """Where images and their parts come from."""

    def manifest(self, reference: str | None = None) -> Manifest:
        """Return the manifest of one image."""

    def names(self, reference: str | None = None) -> Sequence[str]:
        """Return the names that this image is to have unless others are wanted."""

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return a small part whole."""

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a layer for reading; checking it is left to the reader."""


class NamedSource(NamedTuple):
    """A source, and which of its images is meant."""

    source: ImageSource
    reference: str | None


@contextmanager
def image_source(place: str) -> Iterator[NamedSource | None]:
    """Open a source of images.

    Args:
        place: ``oci:DIR[:TAG]``, ``oci-archive:FILE[:TAG]``, ``docker-archive:FILE[:NAME]``, or the path of
            such a file, in any compression.

    Yields:
        The source, or ``None`` where ``place`` is a path of something else.

    Raises:
        InvalidRequest: It is not there.
        InvalidArchive: It is broken.
    """
    if place.startswith(OCI):
        directory, tag = directory_and_tag(place.removeprefix(OCI))
        yield NamedSource(OciLayout(directory), tag)
    elif place.startswith(DOCKER_ARCHIVE):
        path, name = file_and_reference(place.removeprefix(DOCKER_ARCHIVE))
        with ArchiveMembers(path) as members:
            yield NamedSource(DockerArchive(members), name)
    elif place.startswith(OCI_ARCHIVE):
        path, tag = file_and_reference(place.removeprefix(OCI_ARCHIVE))
        with ArchiveMembers(path) as members:
            yield NamedSource(OciLayout(path, members), tag)
    elif os.path.isfile(place) and _FIRST_NAME.fullmatch(first_name(place) or ""):
        with ArchiveMembers(place) as members:
            found = _recognised(members)
            yield NamedSource(found, None) if found is not None else None
    else:
        yield None


def _recognised(members: ArchiveMembers) -> ImageSource | None:
    try:
        if LIST in members:
            found = DockerArchive(members)
            return found if found.images else None
        return OciLayout(members.path, members) if MARKER in members else None
    except InvalidArchive:
        return None  # a file of that name means something else here
