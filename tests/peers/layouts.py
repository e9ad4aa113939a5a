"""Reading OCI layouts that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["blob_in", "digest_in", "manifest_in"]


def digest_in(layout: Path) -> str:
    """Return the digest of the only image in a layout."""
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(manifest["digest"])


def blob_in(layout: Path, digest: str) -> bytes:
    """Return what has that digest."""
    algorithm, _, encoded = digest.partition(":")
    return (layout / "blobs" / algorithm / encoded).read_bytes()


def manifest_in(layout: Path) -> dict[str, Any]:
    """Return the manifest of the only image in a layout."""
    found = json.loads(blob_in(layout, digest_in(layout)))
    assert isinstance(found, dict)
    return found
