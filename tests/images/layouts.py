"""Writing OCI image layouts, also such as no tool would write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.store.tars import digest_of

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

Json = dict[str, Any]


class Layout:
    """An OCI image layout that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.list()

    def list(self, *entries: Json) -> None:
        """Make the layout's index name these, and nothing else."""
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))

    def listed(self) -> Sequence[Json]:
        found: Sequence[Json] = json.loads((self.path / "index.json").read_text())["manifests"]
        return found

    def add(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.replace(digest, content)
        return digest

    def write(self, content: bytes) -> Path:
        """Write a file that is no blob."""
        path = self.path / "file"
        path.write_bytes(content)
        return path

    def blob(self, digest: str) -> bytes:
        return self._file(digest).read_bytes()

    def replace(self, digest: str, content: bytes) -> None:
        self._file(digest).write_bytes(content)

    def remove(self, digest: str) -> None:
        self._file(digest).unlink()

    def _file(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "/")

    def entry(self, digest: str, media_type: str = MANIFEST_TYPE, **more: object) -> Json:
        return {"mediaType": media_type, "digest": digest, "size": len(self.blob(digest)), **more}

    def index(self, *entries: Json) -> str:
        return self.add(json.dumps({"schemaVersion": 2, "manifests": entries}).encode())

    def image(
        self,
        *layers: bytes,
        tag: str | None = None,
        listed: bool = True,
        compress: Callable[[bytes], bytes] = bytes,
        layer_type: str = LAYER_TYPE,
        manifest_type: str = MANIFEST_TYPE,
        diff_ids: Sequence[str] | None = None,
    ) -> str:
        """Add an image, and return the digest of its manifest."""
        blobs = [self.add(compress(layer)) for layer in layers]
        rootfs = {"type": "layers", "diff_ids": diff_ids or [digest_of(layer) for layer in layers]}
        config = self.add(json.dumps({"os": "linux", "config": {}, "rootfs": rootfs}).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.entry(config, CONFIG_TYPE),
            "layers": [self.entry(blob, layer_type) for blob in blobs],
        }
        digest = self.add(json.dumps(manifest).encode())
        if listed:
            annotations = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
            self.list(*self.listed(), self.entry(digest, manifest_type, **annotations))
        return digest
