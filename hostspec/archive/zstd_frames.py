"""Following the structure of zstd frames, to know whether a stream of them ended where one ends.

The decompressor of the ``zstandard`` package ends in silence where its input ends, within a frame too; a
truncated layer would be taken for a short one. RFC 8878, section 3.1.1, "Zstandard Frames".
"""

from __future__ import annotations

from collections.abc import Generator

__all__ = ["ZstdFrames"]

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_RAW, _RLE = 0, 1


class ZstdFrames:
    """Is fed the compressed bytes in pieces and says whether they may end here."""

    def __init__(self) -> None:
        """Start before the first frame."""
        self.between_frames = True
        """Whether the bytes so far are whole frames."""
        self._steps = self._follow()
        self._needed, self._keeps = next(self._steps)
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        at = 0
        while at < len(data):
            self.between_frames = False
            taken = min(self._needed, len(data) - at)
            if self._keeps:
                self._kept += data[at : at + taken]
            at += taken
            self._needed -= taken
            while not self._needed:
                kept = bytes(self._kept)
                self._kept.clear()
                self._needed, self._keeps = self._steps.send(kept)

    def _follow(self) -> Generator[tuple[int, bool], bytes, None]:
        """Ask for bytes: how many, and whether they are of interest. Get those that are."""
        while True:
            self.between_frames = True
            magic = int.from_bytes((yield 4, True), "little")
            if magic & ~0xF == _SKIPPABLE_MAGIC:
                yield int.from_bytes((yield 4, True), "little"), False
            elif magic == _MAGIC:
                yield from self._frame()
            # Anything else the decompressor refuses.

    def _frame(self) -> Generator[tuple[int, bool], bytes, None]:
        descriptor = (yield 1, True)[0]
        single_segment = bool(descriptor & 0x20)
        content_size = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        yield (0 if single_segment else 1) + dictionary + content_size, False
        last = False
        while not last:
            header = int.from_bytes((yield 3, True), "little")
            last = bool(header & 1)
            yield 1 if header >> 1 & 3 == _RLE else header >> 3, False
        if descriptor & 4:
            yield 4, False
