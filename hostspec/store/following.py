"""What is learnt of a layer's tar while it passes: whose files are in it, and how it is put together."""

from __future__ import annotations

from typing import BinaryIO

from hostspec.archive.reader import TarReader
from hostspec.archive.tar_split import TarSplitWriter
from hostspec.archive.whiteouts import WHITEOUT_PREFIX
from hostspec.errors import InvalidArchive

__all__ = ["Follower"]

_WHITEOUT = WHITEOUT_PREFIX.encode()
_ID_BITS = 0xFFFF_FFFF
_PIECE = 1 << 19


class Follower:
    """Reads a tar for the facts that a layer's record needs.

    It only watches: whoever unpacks the same bytes says what is wrong with them. From the first header on
    that it does not understand it notes nothing more.

    Attributes:
        has_tar_split: Whether the tar-split file is whole; never before the tar has been read.
    """

    def __init__(self, tar_split: BinaryIO, *, tree_is_empty: bool = True) -> None:
        """Write the tar-split file; arguments as for :class:`~hostspec.archive.tar_split.TarSplitWriter`."""
        self._writer = TarSplitWriter(tar_split, tree_is_empty=tree_is_empty)
        self._uids: set[int] = set()
        self._gids: set[int] = set()
        self.has_tar_split = False

    @property
    def needs_proof(self) -> bool:
        """Whether the tar-split file may fail to give the tar back, which only a trial shows."""
        return self._writer.needs_proof

    @property
    def uids(self) -> tuple[int, ...]:
        """Owners of the members, whiteouts left out: container UIDs, ascending."""
        return tuple(sorted({each & _ID_BITS for each in self._uids}))

    @property
    def gids(self) -> tuple[int, ...]:
        """Their container GIDs, ascending."""
        return tuple(sorted({each & _ID_BITS for each in self._gids}))

    def follow(self, stream: BinaryIO) -> None:
        """Read a tar to the end of the stream, whatever is in it.

        Raises:
            Exception: What reading the stream raised, unless that is InvalidArchive.
        """
        writer, uids, gids = self._writer, self._uids, self._gids
        try:
            for member in TarReader(stream, trace=writer):
                writer.member(member)
                if _WHITEOUT not in member.name or not _is_whiteout(member.name):
                    uids.add(member.uid)
                    gids.add(member.gid)
        except InvalidArchive as error:
            writer.give_up(str(error))
            while stream.read(_PIECE):
                pass
        self.has_tar_split = writer.finish()


def _is_whiteout(name: bytes) -> bool:
    return name.rstrip(b"/").rpartition(b"/")[2].startswith(_WHITEOUT)
