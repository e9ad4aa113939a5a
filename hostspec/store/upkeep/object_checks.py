"""Whether the big data items of images and containers are what their records say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from hostspec.errors import HostspecError, Unknown
from hostspec.store.big_data import read_item
from hostspec.store.format.records import MANIFEST_PREFIX, Container, Image
from hostspec.store.graph_root import GraphRoot
from hostspec.store.upkeep.findings import Finding, Problem

__all__ = ["data_of"]

_SIGNED = b'"signatures"'


def data_of(root: GraphRoot, record: Image | Container) -> Iterator[Finding]:
    """Yield what is wrong with the items of an image or a container."""
    is_image = isinstance(record, Image)
    kind = "image" if is_image else "container"
    read_only = isinstance(record, Image) and record.read_only
    missing = Problem.IMAGE_DATA_MISSING if is_image else Problem.CONTAINER_DATA_MISSING
    wrong_size = Problem.IMAGE_DATA_SIZE if is_image else Problem.CONTAINER_DATA_SIZE
    wrong_digest = Problem.IMAGE_DATA_DIGEST if is_image else Problem.CONTAINER_DATA_DIGEST

    def finding(problem: Problem, reason: str = "") -> Finding:
        return Finding(kind, record.id, problem, f'data item "{key}"', read_only, reason)

    for key in record.big_data:
        try:
            content = read_item(root, record, key)
        except Unknown:
            yield finding(missing)
        except HostspecError as error:
            yield finding(missing, str(error))
        else:
            size = record.big_data_sizes.get(key)
            if size is not None and size != len(content):
                yield finding(wrong_size, f"has {len(content)} bytes instead of {size}")
            elif not _has_digest(record.big_data_digests.get(key, ""), key, content):
                yield finding(wrong_digest)


def _has_digest(recorded: str, key: str, content: bytes) -> bool:
    """Tell whether an item has the digest that is recorded for it, or no such thing can be told."""
    algorithm, _, expected = recorded.partition(":")
    # The digest of an old, signed manifest leaves its signatures out.
    if algorithm not in hashlib.algorithms_guaranteed or (
        key.startswith(MANIFEST_PREFIX) and _SIGNED in content
    ):
        return True
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == expected
