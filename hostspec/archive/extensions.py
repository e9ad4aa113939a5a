"""What stands before a member and changes what its header says: PAX records and GNU long names."""

from __future__ import annotations

from hostspec.archive.headers import Kind
from hostspec.archive.member import Member
from hostspec.archive.numbers import decimal, nanoseconds
from hostspec.archive.pax import XATTR_PREFIX, parse_records
from hostspec.archive.sparse import NAME_KEY, is_map_key, is_pair_key
from hostspec.errors import InvalidArchive

__all__ = ["MAX_EXTENSION", "Extensions"]

MAX_EXTENSION = 1 << 20
"""Bytes of names or records that may stand before one member (the bound of Go's archive/tar)."""

_FLAGS = frozenset({Kind.PAX, Kind.OLD_PAX, Kind.GLOBAL_PAX, Kind.GNU_LONG_NAME, Kind.GNU_LONG_LINK})
_MAX_SIZE = MAX_EXTENSION * 4
_MAX_GLOBAL_SIZE = 1 << 16  # all of it is looked at for every member


class Extensions:
    """Collects extended headers until the member they speak of comes.

    PAX records prevail over long names, and those over the header. Global records hold until the end of
    the archive, or until others replace them (POSIX.1-2017, pax).
    """

    __slots__ = (
        "_global",
        "_long_link",
        "_long_name",
        "_size",
        "have_sparse_map",
        "records",
        "sparse_pairs",
    )

    def __init__(self) -> None:
        """Start without any."""
        self._global: dict[bytes, bytes] = {}
        self.records: dict[bytes, bytes] = {}
        """Records for the next member."""
        self.sparse_pairs: list[bytes] = []
        """Values of the records that version 0.0 of sparse files repeats."""
        self.have_sparse_map = False
        """Whether the records speak of a sparse file."""
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._size = 0

    @staticmethod
    def takes(flag: bytes) -> bool:
        """Tell whether a header of this kind belongs here."""
        return flag in _FLAGS

    @property
    def are_pending(self) -> bool:
        """Whether something waits for a member."""
        names = (self._long_name, self._long_link)
        return bool(self.records or self.sparse_pairs) or any(name is not None for name in names)

    def forget(self) -> None:
        """Let go of what was for one member."""
        if self._size:
            self.records = {}
            self.sparse_pairs = []
            self.have_sparse_map = False
            self._long_name = self._long_link = None
            self._size = 0

    def add(self, flag: bytes, data: bytes) -> None:
        """Take the content of an extended header.

        Raises:
            InvalidArchive: It is damaged, or there is too much before one member.
        """
        self._size += len(data) + 1
        if self._size > _MAX_SIZE:
            raise InvalidArchive("there are too many extended headers before one member")
        if flag == Kind.GNU_LONG_NAME:
            self._long_name = data.split(b"\0", 1)[0]
        elif flag == Kind.GNU_LONG_LINK:
            self._long_link = data.split(b"\0", 1)[0]
        elif flag == Kind.GLOBAL_PAX:
            self._global.update(parse_records(data))
            if sum(len(key) + len(value) for key, value in self._global.items()) > _MAX_GLOBAL_SIZE:
                raise InvalidArchive("there are too many global extended headers")
        else:
            for key, value in parse_records(data):
                if is_map_key(key):
                    self.have_sparse_map = True
                    if is_pair_key(key):
                        self.sparse_pairs.append(value)
                        continue
                self.records[key] = value

    def apply(self, member: Member) -> None:
        """Change a member into what is said of it.

        Raises:
            InvalidArchive: A value is no such value.
        """
        if self._size:
            if self._long_name is not None:
                member.name = self._long_name
            if self._long_link is not None:
                member.link = self._long_link
        if self._global:
            _apply_records(member, {**self._global, **self.records})
        elif self.records:
            _apply_records(member, self.records)


def _apply_records(member: Member, records: dict[bytes, bytes]) -> None:
    """Let records override the header. An empty value means: as in the header."""
    for key, value in records.items():
        if key.startswith(XATTR_PREFIX):
            if member.xattrs is None:
                member.xattrs = {}
            member.xattrs[key[len(XATTR_PREFIX) :]] = value
        elif value:
            _apply_record(member, key, value)
    if NAME_KEY in records:
        member.name = _name(records[NAME_KEY])


def _apply_record(member: Member, key: bytes, value: bytes) -> None:
    if key == b"mtime":
        member.mtime_ns = nanoseconds(value, "modification time")
    elif key == b"path":
        member.name = _name(value)
    elif key == b"linkpath":
        member.link = _name(value)
    elif key == b"size":
        member.stored = decimal(value, "size")
    elif key == b"uid":
        member.uid = decimal(value, "UID")
    elif key == b"gid":
        member.gid = decimal(value, "GID")


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise InvalidArchive("a name holds a NUL")
    return value
