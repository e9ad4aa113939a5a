"""PAX extended headers: records of ``LENGTH KEY=VALUE`` before the member they speak of.

Values are kept as bytes: names and extended attributes need not be text
(POSIX.1-2017, pax, "pax Extended Header"; ``hdrcharset=BINARY`` says so expressly).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostspec.errors import InvalidArchive

__all__ = ["XATTR_PREFIX", "format_records", "parse_records"]

XATTR_PREFIX = b"SCHILY.xattr."
"""What comes before the name of an extended attribute in a key (star's, used by all)."""

_MAX_LENGTH_DIGITS = 9


def parse_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and value of each record, in their order.

    Raises:
        InvalidArchive: A record's length is wrong or it has no key.
    """
    position = 0
    end = len(data)
    while position < end:
        space = data.find(b" ", position, position + _MAX_LENGTH_DIGITS + 1)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            if not data[position:].strip(b"\0"):
                return  # some writers fill the block into its size
            raise InvalidArchive("a PAX record has no length")
        stop = position + int(digits)
        if stop > end or stop <= space + 1 or data[stop - 1 : stop] != b"\n":
            raise InvalidArchive("the length of a PAX record is wrong")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key:
            raise InvalidArchive("a PAX record has no key")
        yield key, value
        position = stop


def format_records(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the content of an extended header with these records, in their order."""
    return b"".join(_format_record(key, value) for key, value in records)


def _format_record(key: bytes, value: bytes) -> bytes:
    body = len(key) + len(value) + 3  # space, equals sign, newline
    total = body + len(str(body))
    if len(str(total)) != len(str(body)):
        total = body + len(str(total))
    return b"%d %b=%b\n" % (total, key, value)
