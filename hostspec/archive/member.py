"""One member of a tar."""

from __future__ import annotations

from hostspec.archive.sparse import SparseMap

__all__ = ["Member"]


class Member:
    """One member of a tar, as its headers describe it."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "sparse",
        "stored",
        "uid",
        "xattrs",
    )

    name: bytes
    """Its name as the tar has it."""
    kind: bytes
    """One of the flags in :class:`Kind`; every kind of regular file is ``Kind.FILE``."""
    mode: int
    """Permission, set-ID and sticky bits."""
    uid: int
    gid: int
    """Owner; not checked to be 32-bit."""
    stored: int
    """Bytes of data that follow the headers."""
    mtime_ns: int
    """Nanoseconds since the epoch."""
    link: bytes
    """Target of a symbolic or hard link."""
    major: int
    minor: int
    """Numbers of a device."""
    xattrs: dict[bytes, bytes] | None
    """Extended attributes, by name."""
    sparse: SparseMap | None
    """Where the stored bytes belong, if not one after the other."""

    @property
    def size(self) -> int:
        """Length of the file in bytes, holes included."""
        return self.sparse.size if self.sparse is not None else self.stored

    @property
    def text(self) -> str:
        """The name for people and errors."""
        return self.name.decode("utf-8", "surrogateescape")
