"""Writing docker-archives by hand, also such as no tool would write."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hostspec.images.archive_members import ArchiveMembers
from hostspec.images.docker_archive import DockerArchive
from tests.store.tars import digest_of


def config_of(*layers: bytes) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    return json.dumps({"os": "linux", "config": {}, "rootfs": rootfs}).encode()


def listed(config: str, layers: Sequence[str], *tags: str) -> dict[str, object]:
    return {"Config": config, "RepoTags": list(tags) or None, "Layers": list(layers)}


def archive(path: Path, members: Mapping[str, object]) -> Path:
    """Write a tar of files and of links."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            elif isinstance(content, bytes):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


def as_docker_saved(path: Path, *layers: bytes, tags: Sequence[str] = ("mine:latest",)) -> Path:
    """Write one image as Docker 1.10 to 24 did: a directory for each layer."""
    config = config_of(*layers)
    name = f"{digest_of(config).removeprefix('sha256:')}.json"
    places = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    members = {
        name: config,
        **dict(zip(places, layers, strict=True)),
        "manifest.json": json.dumps([listed(name, places, *tags)]).encode(),
    }
    return archive(path, members)


@contextmanager
def opened_archive(path: Path) -> Iterator[DockerArchive]:
    with ArchiveMembers(str(path)) as members:
        yield DockerArchive(members)
