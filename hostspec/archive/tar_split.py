"""tar-split files: how a tar was put together, so that it can be put together again, bit by bit.

One is a gzip of lines of JSON, in the order of the tar. A *segment* holds bytes of it literally, in base64:
headers, padding, what follows the last member. A *file* says that the content of a file comes
here, which lies unpacked in a directory: its name, its size and the CRC-64/ISO of its bytes. As
vbatts/tar-split writes and reads them (tar/asm, tar/storage; verified with containers-storage 1.43)::

    {"type":2,"payload":"ZXRjL25hbWUAAAA…","position":0}
    {"type":1,"name":"etc/name","size":9,"payload":"uQlWx3WkEAE=","position":1}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import BufferedReader
from json.encoder import encode_basestring_ascii
from typing import BinaryIO, NamedTuple

from fastcrc.crc64 import go_iso
from isal import isal_zlib
from pybase64 import b64decode, b64encode

from hostspec.archive.compression import decompressed
from hostspec.archive.content_files import ContentFiles
from hostspec.archive.member import Member
from hostspec.errors import InvalidArchive

__all__ = ["CRC_SIZE", "File", "Segment", "TarSplitWriter", "checksum", "read_tar_split"]

CRC_SIZE = 8
"""Bytes of a checksum; the most significant comes first."""

_SEGMENT_TYPE = 2
_FILE_TYPE = 1
_SEGMENT_START = b'{"type":2,"payload":"'
# Nearly all lines of files are like this; the others are read as the JSON that they are.
_FILE_LINE = re.compile(
    rb'\{"type":1,"name":"([^"\\\x00-\x1f\x7f-\xff]+)",'
    rb'(?:"payload":null|"size":([1-9][0-9]{0,17}),"payload":"([A-Za-z0-9+/]{11}=)"),"position":[0-9]+\}\n'
)
_MAX_SEGMENT = 1 << 20
_MAX_LINE = 256 << 20  # older versions of the Go library write all that follows the last member in one
_BATCH = 1 << 16
_READ_SIZE = 1 << 17
_GZIP = 31
_LEVEL = 1

checksum = go_iso
"""Return the CRC-64/ISO of bytes; given that of the bytes before as a second argument, of both."""


class Segment(NamedTuple):
    """Bytes of the tar."""

    data: bytes


class File(NamedTuple):
    """A place in the tar where the content of a file comes."""

    name: bytes
    """Its name, as the tar has it."""
    size: int
    """In bytes; not zero."""
    crc: bytes
    """Checksum of the content, :data:`CRC_SIZE` bytes."""


class TarSplitWriter:
    """Shown a tar while it is read, writes its tar-split file; the ``trace`` of a :class:`TarReader`.

    Contents that are in no file once the tar is unpacked are held as segments: of sparse files,
    of which the tar has less than the file, and of members that the unpacking passes over. Where a tar
    has a file twice, so that nothing has the first content in the end, there is no tar-split file
    (the Go library refuses to import such a layer).
    """

    def __init__(self, target: BinaryIO, *, tree_is_empty: bool = True) -> None:
        """Write to ``target``, from its current position.

        Args:
            target: Is written in large pieces; what a failure leaves in it is of no use.
            tree_is_empty: Whether nothing is in the tree before the tar is unpacked into it.
        """
        self._target = target
        self._compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._lines: list[bytes] = []
        self._lines_size = 0
        self._position = 0
        self._segment = bytearray()
        self._file: Member | None = None
        self._crc = 0
        self._files = ContentFiles(tree_is_empty=tree_is_empty)
        self.gave_up: str | None = None
        """Why there will be no tar-split file, or ``None``."""

    @property
    def needs_proof(self) -> bool:
        """Whether the tar-split file may fail to give the tar back, which only a trial shows."""
        return self._files.needs_proof

    def framing(self, data: memoryview) -> None:
        """Take bytes that belong to no content."""
        if self._file is not None:
            self._end_file(self._file)
        self._segment += data
        if len(self._segment) >= _MAX_SEGMENT:
            self._end_segment()

    def content(self, data: memoryview) -> None:
        """Take a piece of what is stored for the current member, or of an extended header before it."""
        if self._file is not None:
            self._crc = go_iso(data, self._crc)
        else:
            self._segment += data
            if len(self._segment) >= _MAX_SEGMENT:
                self._end_segment()

    def member(self, member: Member) -> None:
        """Take the facts of a member, after its headers and before its content."""
        if self.gave_up is not None:
            return
        if self._files.has(member):
            self._end_segment()
            if member.stored:
                self._file = member
                self._crc = 0
            else:
                self._add(b'{"type":1,%b,"payload":null,"position":%d}\n', _named(member.name))
        elif self._files.lost is not None:
            self.give_up(self._files.lost)

    def finish(self) -> bool:
        """Write what is left; tell whether the tar-split file is one."""
        if self._file is not None:
            self._end_file(self._file)
        self._end_segment()
        if self.gave_up is None:
            self._write()
            self._target.write(self._compressor.flush())
        return self.gave_up is None

    def give_up(self, reason: str) -> None:
        """Write nothing more."""
        self.gave_up = self.gave_up or reason
        self._file = None

    def _end_file(self, member: Member) -> None:
        self._file = None
        facts = (_named(member.name), member.stored, _base64(self._crc.to_bytes(CRC_SIZE, "big")))
        self._add(b'{"type":1,%b,"size":%d,"payload":"%b","position":%d}\n', *facts)

    def _end_segment(self) -> None:
        if self._segment:
            self._add(b'{"type":2,"payload":"%b","position":%d}\n', _base64(self._segment))
            self._segment.clear()

    def _add(self, form: bytes, *facts: bytes | int) -> None:
        if self.gave_up is not None:
            return
        line = form % (*facts, self._position)
        self._position += 1
        self._lines.append(line)
        self._lines_size += len(line)
        if self._lines_size >= _BATCH:
            self._write()

    def _write(self) -> None:
        self._target.write(self._compressor.compress(b"".join(self._lines)))
        self._lines.clear()
        self._lines_size = 0


def read_tar_split(source: BinaryIO) -> Iterator[Segment | File]:
    """Yield what a tar-split file says, in its order; files without content are left out.

    Args:
        source: The file, compressed; it is read to its end.

    Raises:
        InvalidArchive: It is damaged, or no tar-split file.
    """
    lines = BufferedReader(decompressed(source), _READ_SIZE)
    while line := lines.readline(_MAX_LINE):
        try:
            entry = _entry(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidArchive("the tar-split file cannot be understood") from error
        if entry is not None:
            yield entry


def _entry(line: bytes) -> Segment | File | None:
    if line.startswith(_SEGMENT_START):  # all segments do, and base64 ends before the next quote
        start = len(_SEGMENT_START)
        return Segment(_from_base64(line[start : line.index(b'"', start)]))
    if usual := _FILE_LINE.fullmatch(line):
        text, digits, crc = usual.groups()
        return File(text, int(digits), _from_base64(crc)) if digits else None
    return _unusual_entry(line)


def _unusual_entry(line: bytes) -> Segment | File | None:
    fields = json.loads(line)
    kind, payload, size = fields["type"], fields["payload"] or "", fields.get("size", 0)
    if kind == _SEGMENT_TYPE:
        return Segment(_from_base64(payload))
    if kind != _FILE_TYPE or type(size) is not int or size < 0:
        raise ValueError(line)
    if not size:
        return None
    raw = fields.get("name_raw")
    name = _from_base64(raw) if raw else fields["name"].encode()
    if b"\0" in name:
        raise ValueError(line)
    return File(name, size, _from_base64(payload))


def _named(name: bytes) -> bytes:
    """Return the JSON fields of a name: what is no UTF-8 cannot be text there."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return b'"name_raw":"%b"' % _base64(name)
    return b'"name":%b' % encode_basestring_ascii(text).encode()


def _from_base64(text: bytes | str) -> bytes:
    return b64decode(text, validate=True)


def _base64(data: bytes | bytearray) -> bytes:
    return b64encode(data)
