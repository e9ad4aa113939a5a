"""The JSON documents of an OCI image: descriptors, manifests, configurations.

Source: OCI image specification 1.1 (``descriptor.md``, ``manifest.md``, ``config.md``);
Docker's schema 2 manifests have the same shape under other media types.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hostspec.errors import DigestMismatch, InvalidArchive

__all__ = [
    "CONFIG_TYPE",
    "INDEX_TYPES",
    "LAYER_TYPES",
    "LONGEST_DOCUMENT",
    "MANIFEST_TYPE",
    "MANIFEST_TYPES",
    "UNCOMPRESSED",
    "Descriptor",
    "Manifest",
    "checked",
    "diff_ids_of",
    "digest_of",
    "encode",
    "make_config",
    "make_manifest",
    "parse_json",
    "parse_manifest",
]

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPES = frozenset({MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json"})
INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
UNCOMPRESSED, GZIP, ZSTD = 0, 2, 4
"""How a layer's record says that its tar was compressed."""
LAYER_TYPES = {
    UNCOMPRESSED: "application/vnd.oci.image.layer.v1.tar",
    GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}
"""Media type of a layer by its compression; the specification has no others."""

LONGEST_DOCUMENT = 32 << 20
"""Bytes; what is longer is no document, and is not read into memory."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Descriptor(NamedTuple):
    """Where a blob is, and how it is checked."""

    media_type: str
    """What it is."""
    digest: str
    """``algorithm:hex``."""
    size: int
    """In bytes."""
    annotations: Mapping[str, str]
    """Annotations, of which an index has the reference name."""
    platform: Mapping[str, object]
    """``os`` and ``architecture``, in an index of several platforms."""

    def as_json(self) -> dict[str, object]:
        """Return it as a document has it, without what is empty."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest(NamedTuple):
    """One image: its configuration and its layers, lowest first."""

    raw: bytes
    """The document as it is stored, whose digest identifies it."""
    config: Descriptor
    """The configuration."""
    layers: tuple[Descriptor, ...]
    """The layers, lowest first."""


def digest_of(content: bytes) -> str:
    """Return the SHA-256 digest of ``content`` as ``sha256:hex``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def checked(content: bytes, descriptor: Descriptor) -> bytes:
    """Return ``content`` if it is what the descriptor promises.

    Raises:
        DigestMismatch: It is not.
    """
    algorithm = descriptor.digest.partition(":")[0]
    actual = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    if actual != descriptor.digest:
        raise DigestMismatch(descriptor.digest, actual, descriptor.media_type)
    return content


def parse_json(content: bytes, name: str) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        InvalidArchive: It is not JSON, or not an object.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"is not JSON: {error}", name) from error
    if not isinstance(document, dict):
        raise InvalidArchive("is not a JSON object", name)
    return document


def parse_descriptor(document: object, name: str) -> Descriptor:
    """Read a descriptor.

    Raises:
        InvalidArchive: It lacks something, or its digest is not one that we can check.
    """
    if not isinstance(document, dict):
        raise InvalidArchive("has a descriptor that is not an object", name)
    digest, size = document.get("digest"), document.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise InvalidArchive(f"has the digest {digest!r}, which is neither sha256 nor sha512", name)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidArchive(f"has the size {size!r}", name)
    annotations, platform = document.get("annotations") or {}, document.get("platform") or {}
    if not isinstance(annotations, dict) or not isinstance(platform, dict):
        raise InvalidArchive("has a descriptor whose annotations or platform are not an object", name)
    return Descriptor(str(document.get("mediaType", "")), digest, size, annotations, platform)


def parse_descriptors(document: Mapping[str, object], key: str, name: str) -> tuple[Descriptor, ...]:
    """Read the list of descriptors under ``key``.

    Raises:
        InvalidArchive: There is no list, or one in it is malformed.
    """
    found = document.get(key)
    if not isinstance(found, list):
        raise InvalidArchive(f"has no list of {key}", name)
    return tuple(parse_descriptor(each, name) for each in found)


def parse_manifest(content: bytes) -> Manifest:
    """Read an image manifest.

    Raises:
        InvalidArchive: It is malformed, or of schema 1, which nothing has written since 2017.
    """
    document = parse_json(content, "manifest")
    if document.get("schemaVersion") != 2:  # noqa: PLR2004 - the only version there is
        raise InvalidArchive(f"has schemaVersion {document.get('schemaVersion')!r}, not 2", "manifest")
    return Manifest(
        content,
        parse_descriptor(document.get("config"), "manifest"),
        parse_descriptors(document, "layers", "manifest"),
    )


def diff_ids_of(config: bytes, layers: int) -> tuple[str, ...]:
    """Return the digests of an image's uncompressed layers, lowest first.

    Raises:
        InvalidArchive: The configuration is malformed, or counts other than ``layers`` layers.
    """
    rootfs = parse_json(config, "image configuration").get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArchive("has no rootfs.diff_ids", "image configuration")
    if len(found) != layers:
        raise InvalidArchive(f"names {len(found)} layers, the manifest {layers}", "image configuration")
    return tuple(found)


def make_config(diff_ids: Sequence[str], *, architecture: str, created: str, history: str) -> bytes:
    """Make the configuration of an image that nobody configured.

    Args:
        diff_ids: Digests of the uncompressed layers, lowest first.
        architecture: In Go's terms (``amd64``).
        created: RFC 3339.
        history: What made each layer.
    """
    return encode(
        {
            "created": created,
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [{"created": created, "created_by": history} for _ in diff_ids],
        }
    )


def make_manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """Make the manifest of ``config`` and ``layers``."""
    descriptor = Descriptor(CONFIG_TYPE, digest_of(config), len(config), {}, {})
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
    )


def encode(document: Mapping[str, object] | Sequence[object]) -> bytes:
    """Write JSON as the Go tools do: compact, keys in the order given."""
    return json.dumps(document, separators=(",", ":")).encode()
