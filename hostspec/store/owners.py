"""Which owners occur in a tar, seen in passing: for the ``uidset`` and ``gidset`` of a layer's record."""

from __future__ import annotations

from hostspec.archive.headers import BLOCK, ZERO_BLOCK, Kind
from hostspec.archive.numbers import decimal, number
from hostspec.archive.pax import parse_records
from hostspec.errors import InvalidArchive

__all__ = ["OwnersSeen"]

_UID = slice(108, 116)
_GID = slice(116, 124)
_SIZE = slice(124, 136)
_FLAG = slice(156, 157)
_NAME = slice(0, 100)
_MORE_IN_HEADER = 482
_MORE_IN_EXTENSION = 504
_WHITEOUT = b".wh."
_ID_BITS = 0xFFFF_FFFF
_WITHOUT_CONTENT = frozenset({Kind.HARD_LINK, Kind.SYMLINK, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})
_WITHOUT_CONTENT |= {Kind.DIRECTORY, Kind.FIFO}
_PAX = frozenset({Kind.PAX, Kind.OLD_PAX})
_LONGEST_EXTENSION = 1 << 20


class OwnersSeen:
    """Told the bytes of a tar piece by piece, notes the owners of its members, whiteouts left out.

    It only watches: whoever unpacks the same bytes says what is wrong with them. From the first header
    on that it does not understand it notes nothing more.
    """

    def __init__(self) -> None:
        """Start at the beginning of a tar."""
        self._uids: set[int] = set()
        self._gids: set[int] = set()
        self._pending = bytearray()
        self._skip = 0
        self._extension: bytes | None = None
        self._extension_left = 0
        self._extension_data = bytearray()
        self._in_sparse_map = False
        self._records: dict[bytes, bytes] = {}
        self._long_name: bytes | None = None
        self._lost = False

    @property
    def uids(self) -> tuple[int, ...]:
        """Container UIDs, ascending."""
        return tuple(sorted(self._uids))

    @property
    def gids(self) -> tuple[int, ...]:
        """Container GIDs, ascending."""
        return tuple(sorted(self._gids))

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        if self._lost:
            return
        view = memoryview(piece)
        at = 0
        if self._pending:
            at = BLOCK - len(self._pending)
            self._pending += view[:at]
            if len(self._pending) < BLOCK:
                return
            self._block(bytes(self._pending))
            self._pending.clear()
        end = len(view)
        while at < end and not self._lost:
            if self._skip and not self._in_sparse_map:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            elif end - at < BLOCK:
                self._pending += view[at:]
                return
            else:
                self._block(bytes(view[at : at + BLOCK]))
                at += BLOCK

    def _block(self, block: bytes) -> None:
        if self._extension is not None:
            self._continue_extension(block)
        elif self._in_sparse_map:
            self._in_sparse_map = bool(block[_MORE_IN_EXTENSION])
        elif block != ZERO_BLOCK:
            try:
                self._header(block)
            except InvalidArchive:
                self._lost = True

    def _header(self, block: bytes) -> None:
        flag = block[_FLAG]
        size = number(block[_SIZE], "size")
        if flag in _PAX or flag == Kind.GNU_LONG_NAME:
            if not 0 <= size <= _LONGEST_EXTENSION:
                self._lost = True
                return
            self._extension = flag
            self._extension_left = size
            self._extension_data = bytearray()
            if not size:
                self._finish_extension()
            return
        if flag in {Kind.GLOBAL_PAX, Kind.GNU_LONG_LINK}:
            self._skip_content(size)
            return
        records, self._records = self._records, {}
        name, self._long_name = self._long_name, None
        name = records.get(b"path") or name or block[_NAME].split(b"\0", 1)[0]
        if not name.rstrip(b"/").rpartition(b"/")[2].startswith(_WHITEOUT):
            uid, gid = records.get(b"uid"), records.get(b"gid")
            self._uids.add((decimal(uid, "UID") if uid else number(block[_UID], "UID")) & _ID_BITS)
            self._gids.add((decimal(gid, "GID") if gid else number(block[_GID], "GID")) & _ID_BITS)
        if records.get(b"size"):
            size = decimal(records[b"size"], "size")
        if flag not in _WITHOUT_CONTENT:
            self._skip_content(size)
            self._in_sparse_map = flag == Kind.GNU_SPARSE and bool(block[_MORE_IN_HEADER])

    def _continue_extension(self, block: bytes) -> None:
        self._extension_data += block[: self._extension_left]
        self._extension_left = max(0, self._extension_left - BLOCK)
        if not self._extension_left:
            self._finish_extension()

    def _finish_extension(self) -> None:
        data = bytes(self._extension_data)
        if self._extension == Kind.GNU_LONG_NAME:
            self._long_name = data.split(b"\0", 1)[0]
        else:
            self._records.update(parse_records(data))
        self._extension = None

    def _skip_content(self, size: int) -> None:
        if size < 0:
            self._lost = True
        self._skip = -(-size // BLOCK) * BLOCK
