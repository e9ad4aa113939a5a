"""Writing tar headers: ustar, and PAX extended headers for what does not fit."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from zlib import adler32

from hostspec.archive.headers import BLOCK, Kind
from hostspec.archive.pax import XATTR_PREFIX, format_records

__all__ = ["EntryHeader", "encode_header"]

_NAME_SIZE = 100
_PREFIX_SIZE = 155
_NS = 1_000_000_000
_MAX_SHORT = 0o7777777
_MAX_LONG = 0o77777777777
_MAGIC = b"ustar\x0000".ljust(72, b"\0")  # and no names of user and group
_REST_SIZE = 255
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


@dataclass(slots=True, kw_only=True)
class EntryHeader:
    """What a header says of a member."""

    name: bytes
    """Relative, with a slash at its end for a directory."""
    kind: bytes
    """One of the flags in :class:`~hostspec.archive.headers.Kind`."""
    mode: int = 0
    """Permission, set-ID and sticky bits."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Bytes of data that follow."""
    mtime_ns: int = 0
    """Nanoseconds since the epoch."""
    link: bytes = b""
    """Target of a symbolic or hard link."""
    device: int = 0
    """Number of a device."""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    """Extended attributes."""


def encode_header(header: EntryHeader) -> bytes:
    """Return the blocks of a header, with an extended header before it where one is needed."""
    records: list[tuple[bytes, bytes]] = []
    prefix, name = b"", header.name
    if len(name) > _NAME_SIZE or not name.isascii():
        prefix, name = _split(name, records)
    link = header.link
    if link and (len(link) > _NAME_SIZE or not link.isascii()):
        records.append((b"linkpath", link))
        link = link[:_NAME_SIZE]
    seconds, fraction = divmod(header.mtime_ns, _NS)
    if fraction or not 0 <= seconds <= _MAX_LONG:
        records.append((b"mtime", _decimal_time(header.mtime_ns)))
        seconds = seconds if 0 <= seconds <= _MAX_LONG else 0
    numbers = (
        header.mode,
        _fitting(b"uid", header.uid, _MAX_SHORT, records),
        _fitting(b"gid", header.gid, _MAX_SHORT, records),
        _fitting(b"size", header.size, _MAX_LONG, records),
        seconds,
    )
    for key, value in header.xattrs.items():
        records.append((XATTR_PREFIX + os.fsencode(key), value))
    device = header.device if header.kind in _DEVICES else 0
    rest = _rest(device, prefix) if device or prefix else _PLAIN_REST
    block = _block(name, numbers, header.kind, link, rest)
    return _extended(header.name, sorted(records)) + block if records else block


def _extended(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    """Return an extended header with these records."""
    if not all(_is_utf8(value) for key, value in records if key in (b"path", b"linkpath")):
        records.insert(0, (b"hdrcharset", b"BINARY"))
    data = format_records(records)
    above, _, last = name.rstrip(b"/").rpartition(b"/")
    label = b"/".join(part for part in (above, b"PaxHeaders.0", last) if part)
    ascii_label = label.decode("ascii", "ignore").encode()[:_NAME_SIZE]
    block = _block(ascii_label, (0, 0, 0, len(data), 0), Kind.PAX, b"", _PLAIN_REST)
    return block + data + bytes(-len(data) % BLOCK)


def _split(name: bytes, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return prefix and name as ustar holds a long or odd one, and add a record where it cannot."""
    if not name.isascii():
        records.append((b"path", name))
        return b"", name[:_NAME_SIZE]
    # The last slash that leaves a prefix short enough; one at the end belongs to the name.
    at = name.rfind(b"/", 0, min(_PREFIX_SIZE + 1, len(name) - 1))
    if at > 0 and len(name) - at - 1 <= _NAME_SIZE:
        return name[:at], name[at + 1 :]
    records.append((b"path", name))
    return b"", name[:_NAME_SIZE]


def _fitting(key: bytes, value: int, most: int, records: list[tuple[bytes, bytes]]) -> int:
    """Return what goes into the header, and add a record where that is not the value."""
    if value <= most:
        return value
    records.append((key, b"%d" % value))
    return 0


def _decimal_time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _NS)
    sign = "-" if nanoseconds < 0 else ""
    text = f"{sign}{seconds}.{fraction:09}".rstrip("0").rstrip(".")
    return text.encode()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _rest(device: int, prefix: bytes) -> bytes:
    """Return what follows the link in a header block."""
    numbers = b"%07o\0%07o\0" % (os.major(device), os.minor(device))
    return (_MAGIC + numbers + prefix).ljust(_REST_SIZE, b"\0")


_PLAIN_REST = _rest(0, b"")


def _block(
    name: bytes, numbers: tuple[int, int, int, int, int], kind: bytes, link: bytes, rest: bytes
) -> bytes:
    """Return one header block.

    The low half of Adler-32 is one more than the sum of the bytes modulo 65,521. What is written here
    stays below that: 100 bytes of the name and of the link at most 255 each, all others ASCII.
    """
    fields = name.ljust(_NAME_SIZE, b"\0"), *numbers, kind, link.ljust(_NAME_SIZE, b"\0"), rest
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b%b" % fields
    return b"%b%06o\0 %b" % (block[:148], (adler32(block) & 0xFFFF) - 1, block[156:])
