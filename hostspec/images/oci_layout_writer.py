"""Writing OCI image layouts, also into one that is there.

Source: OCI image specification 1.1, ``image-layout.md`` and ``image-index.md``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from hostspec.archive.byte_source import pieces_of
from hostspec.archive.compressing import compressing
from hostspec.archive.compression import Compression
from hostspec.errors import InvalidArchive, InvalidRequest
from hostspec.images.documents import Descriptor, digest_of, encode, parse_json
from hostspec.images.new_files import new_file
from hostspec.images.oci_layout import INDEX, MARKER, REFERENCE_NAME
from hostspec.kernel.filelocks import lock

__all__ = ["OciLayoutWriter", "WrittenBlob"]

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_VERSION = {"imageLayoutVersion": "1.0.0"}


class WrittenBlob(NamedTuple):
    """A blob in a layout."""

    digest: str
    """``sha256:HEX``."""
    size: int
    """In bytes."""


class OciLayoutWriter:
    """An OCI image layout, for adding to; several processes may do so at once."""

    def __init__(self, directory: str) -> None:
        """Open a layout, or make one in a directory that is empty or not there.

        Raises:
            InvalidRequest: The directory has other things in it.
            OSError: It cannot be made.
        """
        self._directory = directory
        self._marker = os.path.join(directory, MARKER)
        self._blobs = os.path.join(directory, "blobs", "sha256")
        os.makedirs(directory, exist_ok=True)
        others = set(os.listdir(directory)) - {"blobs", INDEX, MARKER}
        # Another process that makes a layout here has made the marker before anything else that is listed,
        # so the marker is looked for after listing.
        if others and not os.path.exists(self._marker):
            raise InvalidRequest(directory, "is neither an OCI image layout nor empty")
        os.makedirs(self._blobs, exist_ok=True)
        with self._locked():
            if not os.path.exists(os.path.join(directory, INDEX)):
                self._replace(INDEX, {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": []})

    def has(self, blob: WrittenBlob) -> bool:
        """Tell whether a blob is there, and whole."""
        algorithm, _, encoded = blob.digest.partition(":")
        if algorithm != "sha256":
            return False
        try:
            with open(os.path.join(self._blobs, encoded), "rb") as file:
                if os.fstat(file.fileno()).st_size != blob.size:
                    return False
                return hashlib.file_digest(file, "sha256").hexdigest() == encoded
        except FileNotFoundError:
            return False

    def add(self, stream: BinaryIO, compression: Compression = Compression.NONE) -> WrittenBlob:
        """Add a blob.

        Args:
            stream: Its content, which is read to the end.
            compression: How it is to be compressed.
        """
        with new_file(self._blobs) as new:
            with compressing(new.file, compression) as target:
                for piece in pieces_of(stream):
                    target.write(piece)
            new.file.flush()
            new.file.seek(0)
            digest = hashlib.file_digest(new.file, "sha256").hexdigest()
            blob = WrittenBlob(f"sha256:{digest}", new.file.tell())
            # One that is there already may be damaged; this one is not.
            new.keep_as(os.path.join(self._blobs, digest))
        return blob

    def add_document(self, content: bytes) -> WrittenBlob:
        """Add a small blob."""
        digest = digest_of(content)
        with new_file(self._blobs) as new:
            new.file.write(content)
            new.keep_as(os.path.join(self._blobs, digest.partition(":")[2]))
        return WrittenBlob(digest, len(content))

    def list_image(self, manifest: Descriptor, tag: str | None) -> None:
        """Add an image to the layout's index.

        Args:
            manifest: Its manifest.
            tag: Its reference name, which is taken from the image that has it.

        Raises:
            InvalidArchive: The index cannot be understood; it is as it was.
        """
        with self._locked():
            with open(os.path.join(self._directory, INDEX), "rb") as file:
                index = parse_json(file.read(), INDEX)
            listed = index.get("manifests")
            if not isinstance(listed, list):
                raise InvalidArchive("has no list of manifests", INDEX)
            entry = {**manifest.as_json(), **({"annotations": {REFERENCE_NAME: tag}} if tag else {})}
            index["manifests"] = [each for each in listed if not _gives_way(each, entry)] + [entry]
            self._replace(INDEX, index)

    def _replace(self, name: str, document: dict[str, object]) -> None:
        with new_file(self._directory) as new:
            new.file.write(encode(document))
            new.keep_as(os.path.join(self._directory, name))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock on the one file that is never replaced, after making it where it is missing."""
        fd = os.open(self._marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            lock(fd, exclusive=True)
            if not os.fstat(fd).st_size:
                os.write(fd, encode(_VERSION))
            yield
        finally:
            os.close(fd)


def _gives_way(listed: object, entry: dict[str, object]) -> bool:
    """Tell whether an image in the index is replaced by another: the same one, or one of the same name."""
    if not isinstance(listed, dict):
        return False
    old = (listed.get("annotations") or {}).get(REFERENCE_NAME)
    new_annotations = entry.get("annotations")
    new = new_annotations.get(REFERENCE_NAME) if isinstance(new_annotations, dict) else None
    return old == new if new is not None else old is None and listed.get("digest") == entry["digest"]
