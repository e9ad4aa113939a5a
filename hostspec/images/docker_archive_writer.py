"""Writing what ``docker load`` and ``podman load`` read.

Beside ``manifest.json``, which everything reads today, the archive has the older ``repositories`` and a
directory for each layer, as ``docker save`` and ``podman save`` still write them.

Source: Docker image specifications 1.0 and 1.2 (``image/spec`` of moby).
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from hostspec.archive.byte_source import pieces_of
from hostspec.images.docker_archive import LIST
from hostspec.images.documents import digest_of, encode, parse_json

__all__ = ["DockerArchiveWriter"]

_MODE = 0o444


class DockerArchiveWriter:
    """An archive that grows: layers first, then the images that consist of them.

    The same content gives the same archive: times, owners and modes are fixed.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Write to a new file, which must be seekable."""
        self._file = file
        self._written: set[str] = set()
        self._images: list[dict[str, object]] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def add_layer(self, stream: BinaryIO) -> str:
        """Add a layer's tar, unless it is there, and return its digest.

        Its length and digest are known only at its end, so its header is written afterwards.
        """
        start = self._file.tell()
        self._file.write(bytes(tarfile.BLOCKSIZE))
        sha256 = hashlib.sha256()
        size = 0
        for piece in pieces_of(stream):
            sha256.update(piece)
            self._file.write(piece)
            size += len(piece)
        name = f"{sha256.hexdigest()}.tar"
        if name in self._written:
            self._file.seek(start)
            self._file.truncate()
        else:
            self._written.add(name)
            self._file.write(bytes(-size % tarfile.BLOCKSIZE))
            end = self._file.tell()
            self._file.seek(start)
            self._file.write(_header(name, size))
            self._file.seek(end)
        return f"sha256:{sha256.hexdigest()}"

    def add_image(self, config: bytes, layers: Sequence[str], tags: Sequence[str]) -> None:
        """Add an image.

        Args:
            config: Its configuration.
            layers: Digests of its layers, lowest first; they have been added.
            tags: Its names, each with a tag.
        """
        name = f"{_hex(digest_of(config))}.json"
        self._add_file(name, config)
        members = [f"{_hex(layer)}.tar" for layer in layers]
        self._images.append({"Config": name, "RepoTags": list(tags) or None, "Layers": members})
        top = self._add_old_layers(config, layers)
        for each in tags if top else ():
            repository, _, tag = each.rpartition(":")
            self._repositories.setdefault(repository, {})[tag] = top

    def finish(self) -> None:
        """Write the lists and the end of the archive."""
        self._add_file(LIST, encode(self._images))
        if self._repositories:
            self._add_file("repositories", encode(self._repositories))
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))

    def _add_old_layers(self, config: bytes, layers: Sequence[str]) -> str:
        """Describe the layers as Docker did before 1.10, and return what the top one was called then."""
        described = parse_json(config, "image configuration")
        parent = ""
        for place, layer in enumerate(layers, 1):
            is_top = place == len(layers)
            # The top layer's description has the image's configuration, so its ID depends on that, too.
            source = f"{parent} {layer} {digest_of(config) if is_top else ''}"
            identifier = hashlib.sha256(source.encode()).hexdigest()
            document: dict[str, object] = {"id": identifier}
            if parent:
                document["parent"] = parent
            document |= _old_description(described) if is_top else {"created": "1970-01-01T00:00:00Z"}
            self._add_link(f"{identifier}/layer.tar", f"../{_hex(layer)}.tar")
            self._add_file(f"{identifier}/VERSION", b"1.0")
            self._add_file(f"{identifier}/json", encode(document))
            parent = identifier
        return parent

    def _add_file(self, name: str, content: bytes) -> None:
        if name not in self._written:
            self._written.add(name)
            self._file.write(_header(name, len(content)))
            self._file.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))

    def _add_link(self, name: str, target: str) -> None:
        if name not in self._written:
            self._written.add(name)
            self._file.write(_header(name, 0, target))


def _header(name: str, size: int, target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.mode, member.size = _MODE, size
    if target:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    # In GNU's format a header is one block even where the length needs more than 33 bits.
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _old_description(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in {"rootfs", "history", "id", "parent"}}


def _hex(digest: str) -> str:
    return digest.partition(":")[2]
