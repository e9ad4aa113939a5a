"""OCI image layouts: a directory of blobs by digest, with an index; or a tar of one (``oci-archive``).

Source: OCI image specification 1.1, ``image-layout.md`` and ``image-index.md``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from hostspec.errors import InvalidArchive, InvalidRequest
from hostspec.images.archive_members import ArchiveMembers
from hostspec.images.documents import (
    INDEX_TYPES,
    LONGEST_DOCUMENT,
    Descriptor,
    Manifest,
    checked,
    parse_descriptors,
    parse_json,
    parse_manifest,
)
from hostspec.images.platforms import go_architecture

__all__ = ["INDEX", "MARKER", "REFERENCE_NAME", "OciLayout"]

MARKER = "oci-layout"
"""The file that says that a directory is a layout."""
INDEX = "index.json"
"""The list of images."""

REFERENCE_NAME = "org.opencontainers.image.ref.name"
"""Annotation with an image's name in the index."""
NESTING_LIMIT = 4


class OciLayout:
    """An OCI image layout, for reading."""

    def __init__(self, directory: str, members: ArchiveMembers | None = None) -> None:
        """Open a layout.

        Args:
            directory: Where it is; or the path of its tar, for messages.
            members: The tar in which it is; left open.

        Raises:
            InvalidRequest: There is no layout.
            InvalidArchive: There is none in the tar.
        """
        self.directory = directory
        self._members = members
        try:
            with self._open(MARKER) as file:
                parse_json(_document(file, MARKER), MARKER)
        except OSError as error:
            raise InvalidRequest(
                directory, f"is not an OCI image layout: oci-layout: {error.strerror}"
            ) from error

    def manifest(self, tag: str | None = None) -> Manifest:
        """Return the manifest of one image.

        Args:
            tag: Its reference name in the index; not needed where there is only one image.

        Raises:
            InvalidRequest: There is no such image, or several and no tag to tell which.
            InvalidArchive: A document is malformed or missing.
            DigestMismatch: A blob is not what the index promises.
        """
        try:
            with self._open(INDEX) as file:
                content = _document(file, INDEX)
        except OSError as error:
            raise InvalidArchive(f"cannot be read: {error.strerror}", INDEX) from error
        found = parse_descriptors(parse_json(content, INDEX), "manifests", INDEX)
        names = [each.annotations.get(REFERENCE_NAME, "") for each in found]
        matching = [each for each, name in zip(found, names, strict=True) if tag in {None, name}]
        if len(matching) != 1:
            known = ", ".join(filter(None, names)) or "none"
            problem = "has several images" if matching else f"has no image tagged {tag!r}"
            raise InvalidRequest(f"oci:{self.directory}", f"{problem}; say oci:DIR:TAG (tags: {known})")
        return parse_manifest(self._image_blob(matching[0]))

    def names(self, reference: str | None = None) -> Sequence[str]:  # noqa: ARG002 - as other sources have it
        """Return nothing: what an index says of an image is a tag more often than a name."""
        return ()

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return a small blob whole, checked.

        Raises:
            InvalidArchive: It is missing, of another length, or too long for a document.
            DigestMismatch: It is not what the descriptor promises.
        """
        with self.open_blob(descriptor) as file:
            return checked(_document(file, descriptor.digest), descriptor)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a blob for reading; checking its content is left to the reader.

        Raises:
            InvalidArchive: It is missing, or of another length than the descriptor says.
        """
        algorithm, _, encoded = descriptor.digest.partition(":")
        try:
            file = self._open("blobs", algorithm, encoded)
        except OSError as error:
            raise InvalidArchive(
                f"is missing from the layout: {error.strerror}", descriptor.digest
            ) from error
        length = file.seek(0, os.SEEK_END)
        if length != descriptor.size:
            file.close()
            raise InvalidArchive(f"has {length} bytes instead of {descriptor.size}", descriptor.digest)
        file.seek(0)
        return file

    def _open(self, *names: str) -> BinaryIO:
        if self._members is not None:
            return self._members.open("/".join(names))
        path = os.path.join(self.directory, *names)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe there is not waited for
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidArchive("is no file", "/".join(names))
        return open(fd, "rb")

    def _image_blob(self, descriptor: Descriptor) -> bytes:
        """Follow indexes, which may be nested, to the manifest for this machine."""
        for _ in range(NESTING_LIMIT):
            content = self.blob(descriptor)
            if descriptor.media_type not in INDEX_TYPES:
                return content
            found = parse_descriptors(parse_json(content, descriptor.digest), "manifests", descriptor.digest)
            wanted = {"os": "linux", "architecture": go_architecture()}
            fitting = [each for each in found if all(each.platform.get(key) == wanted[key] for key in wanted)]
            if not fitting:
                known = ", ".join(
                    f"{each.platform.get('os')}/{each.platform.get('architecture')}" for each in found
                )
                problem = f"has no image for linux/{wanted['architecture']} (but for {known or 'nothing'})"
                raise InvalidRequest(f"oci:{self.directory}", problem)
            descriptor = fitting[0]
        raise InvalidArchive(f"nests indexes more than {NESTING_LIMIT} deep", descriptor.digest)


def _document(file: BinaryIO, name: str) -> bytes:
    """Read a small file whole.

    Raises:
        InvalidArchive: It is too long for a document.
    """
    content = file.read(LONGEST_DOCUMENT + 1)
    if len(content) > LONGEST_DOCUMENT:
        raise InvalidArchive(f"is longer than {LONGEST_DOCUMENT} bytes", name)
    return content
