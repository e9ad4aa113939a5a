"""Layers, images and containers as the store records them (layers.go, images.go, containers.go)."""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

from collections.abc import Mapping
from typing import NamedTuple, cast

from hostspec.idmap import IdMap
from hostspec.store.format.timestamps import NEVER

__all__ = ["INCOMPLETE", "VOLATILE", "Container", "Image", "Layer"]

INCOMPLETE = "incomplete"
"""Flag of a layer that is half made or half removed; whoever loads it next removes it."""

VOLATILE = "Volatile"
"""Flag of a container whose content need not survive a crash of the machine."""

MANIFEST_PREFIX = "manifest"
"""Big data items of an image whose keys begin so are manifests, whose digests are the image's."""

_NO_MAP = IdMap()
_EMPTY: Mapping[str, object] = {}


class Layer(NamedTuple):
    """One layer of the store."""

    id: str
    """Its ID: 64 hexadecimal digits, or any string that its maker chose."""
    names: tuple[str, ...] = ()
    """Further names, unique among layers."""
    parent: str | None = None
    """ID of the layer on which it stands."""
    metadata: str = ""
    """Any text, for whoever made it."""
    mount_label: str = ""
    """SELinux label for its mounts."""
    created: str = NEVER
    """When it was made, RFC 3339; see :mod:`hostspec.store.format.timestamps`."""
    compressed_digest: str | None = None
    """Digest of the stream from which it was made, as it came."""
    compressed_size: int | None = None
    """Length of that stream in bytes."""
    diff_digest: str | None = None
    """Digest of that stream, uncompressed (the layer's diff ID)."""
    toc_digest: str | None = None
    """Digest of the table of contents, where only that was verified."""
    diff_size: int | None = None
    """Length of the uncompressed stream in bytes; -1 where only the table of contents was verified."""
    compression: int = 0
    """How the stream was compressed: 0 not, 1 bzip2, 2 gzip, 3 xz, 4 zstd."""
    uids: tuple[int, ...] = ()
    """Container UIDs that occur in the stream, ascending."""
    gids: tuple[int, ...] = ()
    """Container GIDs that occur in the stream, ascending."""
    flags: Mapping[str, object] = _EMPTY
    """Facts with names."""
    idmap: IdMap = _NO_MAP
    """The map that its files carry on disk."""
    big_data: tuple[str, ...] = ()
    """Keys of its big data items."""
    extra: Mapping[str, object] = _EMPTY
    """Fields that hostspec does not know."""
    read_only: bool = False
    """Whether it lies in an additional image store; not part of the record."""
    elsewhere: str = ""
    """Directory of its table and its files, where that is not the store's own; not part of the record."""

    @property
    def incomplete(self) -> bool:
        """Whether it is half made or half removed."""
        return self.flags.get(INCOMPLETE) is True


class Image(NamedTuple):
    """One image of the store."""

    id: str
    """Its ID: 64 hexadecimal digits, or any string that its maker chose."""
    digest: str | None = None
    """The digest by which it is best known."""
    names: tuple[str, ...] = ()
    """Further names, unique among images."""
    names_history: tuple[str, ...] = ()
    """Names that it has had, the newest first."""
    layer: str | None = None
    """ID of its top layer."""
    mapped_layers: tuple[str, ...] = ()
    """IDs of layers with the top layer's parent and content, under other ID maps."""
    metadata: str = ""
    """Any text, for whoever made it."""
    big_data: tuple[str, ...] = ()
    """Keys of its big data items."""
    big_data_sizes: Mapping[str, int] = cast(Mapping[str, int], _EMPTY)
    """Their lengths in bytes."""
    big_data_digests: Mapping[str, str] = cast(Mapping[str, str], _EMPTY)
    """Their digests."""
    created: str = NEVER
    """When it was made, RFC 3339; see :mod:`hostspec.store.format.timestamps`."""
    flags: Mapping[str, object] = _EMPTY
    """Facts with names."""
    extra: Mapping[str, object] = _EMPTY
    """Fields that hostspec does not know."""
    read_only: bool = False
    """Whether it lies in an additional image store; not part of the record."""
    elsewhere: str = ""
    """Directory of its table and its files, where that is not the store's own; not part of the record."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest by which it can be found: its own, and those of its manifests."""
        manifests = (
            digest for key, digest in self.big_data_digests.items() if key.startswith(MANIFEST_PREFIX)
        )
        return tuple(dict.fromkeys((*((self.digest,) if self.digest else ()), *manifests)))

    @property
    def top_layers(self) -> tuple[str, ...]:
        """Its top layer and that layer's mapped copies."""
        return (*((self.layer,) if self.layer else ()), *self.mapped_layers)


class Container(NamedTuple):
    """One container of the store."""

    id: str
    """Its ID: 64 hexadecimal digits, or any string that its maker chose."""
    names: tuple[str, ...] = ()
    """Further names, unique among containers."""
    image: str | None = None
    """ID of the image from which it was made."""
    layer: str = ""
    """ID of its own writable layer."""
    metadata: str = ""
    """Any text, for whoever made it."""
    big_data: tuple[str, ...] = ()
    """Keys of its big data items."""
    big_data_sizes: Mapping[str, int] = cast(Mapping[str, int], _EMPTY)
    """Their lengths in bytes."""
    big_data_digests: Mapping[str, str] = cast(Mapping[str, str], _EMPTY)
    """Their digests."""
    created: str = NEVER
    """When it was made, RFC 3339; see :mod:`hostspec.store.format.timestamps`."""
    idmap: IdMap = _NO_MAP
    """The map under which its processes run."""
    flags: Mapping[str, object] = _EMPTY
    """Facts with names: ``MountLabel``, ``ProcessLabel``, ``MountOpts``, ``Volatile``."""
    extra: Mapping[str, object] = _EMPTY
    """Fields that hostspec does not know."""

    @property
    def volatile(self) -> bool:
        """Whether its content need not survive a crash of the machine."""
        return self.flags.get(VOLATILE) is True

    @property
    def mount_label(self) -> str:
        """SELinux label for its mount, or ``""``."""
        return str(self.flags.get("MountLabel") or "")

    @property
    def mount_options(self) -> tuple[str, ...]:
        """Options with which it is to be mounted."""
        recorded = self.flags.get("MountOpts")
        return tuple(map(str, recorded)) if isinstance(recorded, list) else ()
