"""Reading tars: members one after the other from a stream, in bounded memory.

Understands v7, ustar, PAX (extended and global headers) and GNU (long names, binary numbers, all four
forms of sparse files). Not the standard library's ``tarfile``, which keeps every member, takes three times as
long and decodes extended attributes, which are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from hostspec.archive.byte_source import ByteSource, Trace
from hostspec.archive.extensions import MAX_EXTENSION, Extensions
from hostspec.archive.headers import HEADER, ZERO_BLOCK, Kind, check_header
from hostspec.archive.member import Member
from hostspec.archive.numbers import number
from hostspec.archive.sparse import read_old_map, read_pax_map
from hostspec.errors import InvalidArchive

__all__ = ["TarReader"]

_MAX_NUMBERS_KEPT = 4096
_MAX_SIZE = (1 << 63) - 1
_MAX_TIME = (1 << 62) * 1_000_000_000
_AS_FILE = frozenset({Kind.OLD_FILE, Kind.CONTIGUOUS_FILE, Kind.GNU_SPARSE})
_WITH_DATA = frozenset({Kind.FILE, Kind.GNU_VOLUME_LABEL})
_KNOWN = frozenset(
    {
        Kind.FILE,
        Kind.HARD_LINK,
        Kind.SYMLINK,
        Kind.CHARACTER_DEVICE,
        Kind.BLOCK_DEVICE,
        Kind.DIRECTORY,
        Kind.FIFO,
        Kind.GNU_VOLUME_LABEL,
    }
)
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})
_FLAG = slice(156, 157)
_SIZE = slice(124, 136)
_STAR_TRAILER = b"tar\0"
_STAR_PREFIX_SIZE = 131


class TarReader:
    """Iterates over the members of a tar; after each, its content may be taken, or is skipped."""

    def __init__(self, stream: BinaryIO, *, trace: Trace | None = None) -> None:
        """Read the tar in ``stream``, uncompressed.

        Args:
            stream: Is read to its end when the iteration ends, trailing zeros included.
            trace: Is shown every byte.
        """
        self._source = ByteSource(stream, trace=trace)
        self._extensions = Extensions()
        self._numbers: dict[bytes, int] = {}
        self._left = 0
        self._stored = 0
        self.has_end_marker = False
        """Whether the tar ended with a block of zeros, as it should."""

    @property
    def consumed(self) -> int:
        """Bytes of the stream read so far."""
        return self._source.consumed

    def __iter__(self) -> Iterator[Member]:
        """Yield each member.

        Raises:
            InvalidArchive: The tar is damaged; names the member where that is known.
        """
        while True:
            self._skip_rest()
            member = self._next_member()
            if member is None:
                self._source.drain()
                return
            if member.kind != Kind.GNU_VOLUME_LABEL:
                yield member

    def piece(self, limit: int) -> memoryview:
        """Return up to ``limit`` stored bytes of the member that came last, at least one.

        The view is valid until the next call.

        Raises:
            InvalidArchive: The tar ends before that.
        """
        piece = self._source.content(min(limit, self._left))
        self._left -= len(piece)
        return piece

    def _skip_rest(self) -> None:
        if self._left:
            self._source.skip_content(self._left)
            self._left = 0
        if self._stored:
            self._source.skip_padding(self._stored)
            self._stored = 0

    def _next_member(self) -> Member | None:
        """Read headers up to and with the one of the next member."""
        extensions = self._extensions
        extensions.forget()
        while (block := self._source.block()) is not None:
            if block == ZERO_BLOCK:
                self.has_end_marker = True
                break
            check_header(block)
            flag = block[_FLAG]
            if not extensions.takes(flag):
                return self._member(block, flag)
            extensions.add(flag, self._extension(block))
        if extensions.are_pending:
            raise InvalidArchive("unexpected EOF: the archive ends after an extended header")
        return None

    def _extension(self, block: bytes) -> bytes:
        """Return the content of an extended header or a long name."""
        size = number(block[_SIZE], "size")
        if not 0 <= size <= MAX_EXTENSION:
            raise InvalidArchive(f"an extended header has {size} bytes; at most {MAX_EXTENSION} are allowed")
        data = self._stored_bytes(size)
        self._source.skip_padding(size)
        return data

    def _member(self, block: bytes, flag: bytes) -> Member:
        """Bring a header together with the extended headers before it, and prepare for the content."""
        member = Member()
        try:
            self._parse(member, block, flag)
            self._extensions.apply(member)
            self._settle(member)
            if flag == Kind.GNU_SPARSE:
                member.sparse = read_old_map(block, self._source.block).check(member.stored)
            elif self._extensions.have_sparse_map:
                self._read_pax_sparse(member)
        except InvalidArchive as error:
            raise InvalidArchive(error.reason, member.text) from error
        return member

    def _parse(self, member: Member, block: bytes, flag: bytes) -> None:
        """Read the fields of an ordinary header."""
        (name, mode, uid, gid, size, mtime, _, _, link, magic, _, _, major, minor, prefix, rest) = (
            HEADER.unpack(block)
        )
        name = name.split(b"\0", 1)[0]
        if prefix[0] and magic[:6] == b"ustar\0":
            if rest[8:] == _STAR_TRAILER:
                prefix = prefix[:_STAR_PREFIX_SIZE]
            name = prefix.split(b"\0", 1)[0] + b"/" + name
        member.name = name
        member.kind = flag
        member.link = link.split(b"\0", 1)[0]
        member.xattrs = member.sparse = None
        member.mode = self._number(mode, "mode") & 0o7777
        member.uid = self._number(uid, "UID")
        member.gid = self._number(gid, "GID")
        member.stored = self._number(size, "size")
        member.mtime_ns = self._number(mtime, "modification time") * 1_000_000_000
        if flag in _DEVICES:
            member.major = number(major, "device number")
            member.minor = number(minor, "device number")
        else:
            member.major = member.minor = 0

    def _number(self, field: bytes, what: str) -> int:
        """Read a number field; few different ones occur, so each is parsed once."""
        value = self._numbers.get(field)
        if value is None:
            value = number(field, what)
            if len(self._numbers) >= _MAX_NUMBERS_KEPT:
                self._numbers.clear()
            self._numbers[field] = value
        return value

    def _settle(self, member: Member) -> None:
        """Reduce the kinds of regular files to one, and note how much data follows."""
        kind = member.kind
        if kind in _AS_FILE:
            # Before ustar a directory was a file whose name ends so.
            old_directory = kind == Kind.OLD_FILE and member.name.endswith(b"/")
            member.kind = kind = Kind.DIRECTORY if old_directory else Kind.FILE
        if kind not in _KNOWN:
            raise InvalidArchive(f"its type {kind!r} is not known")
        if not 0 <= member.stored <= _MAX_SIZE:
            raise InvalidArchive(f"its size cannot be {member.stored}")
        if not -_MAX_TIME < member.mtime_ns < _MAX_TIME:
            raise InvalidArchive("its modification time is out of range")
        if kind not in _WITH_DATA:
            member.stored = 0
        self._left = self._stored = member.stored

    def _read_pax_sparse(self, member: Member) -> None:
        if member.kind != Kind.FILE:
            raise InvalidArchive("it has a sparse map and is no regular file")
        sparse = read_pax_map(self._extensions.records, self._extensions.sparse_pairs, self._block_of_content)
        member.stored = self._left  # less a map that stands before the data
        member.sparse = sparse.check(member.stored)

    def _block_of_content(self, size: int) -> bytes:
        if self._left < size:
            raise InvalidArchive("its sparse map does not end")
        self._left -= size
        return self._stored_bytes(size)

    def _stored_bytes(self, size: int) -> bytes:
        first = bytes(self._source.content(size)) if size else b""
        if len(first) == size:  # as good as always
            return first
        return first + b"".join(bytes(piece) for piece in self._source.contents(size - len(first)))
