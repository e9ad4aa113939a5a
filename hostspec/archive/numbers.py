"""Numbers as tar headers hold them: octal text, or binary where that is too short."""

from __future__ import annotations

from hostspec.errors import InvalidArchive

__all__ = ["decimal", "nanoseconds", "number"]

_MAX_DIGITS = 20


def number(field: bytes, what: str) -> int:
    """Read a number field of a header.

    Octal digits, with spaces before and spaces or NULs after, as POSIX has it; or GNU's base-256:
    the highest bit of the field set, and the rest a big-endian two's complement number.

    Args:
        field: The bytes of the field.
        what: Its name, for the error.

    Raises:
        InvalidArchive: It is neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise InvalidArchive(f"its {what} is no octal number: {field!r}")
    try:
        return int(digits, 8)
    except ValueError:
        raise InvalidArchive(f"its {what} is no octal number: {field!r}") from None


def decimal(text: bytes, what: str) -> int:
    """Read a decimal number without sign, of a PAX record or a sparse map.

    Raises:
        InvalidArchive: It is none, or has more digits than a size can have.
    """
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidArchive(f"its {what} is no decimal number: {text[:_MAX_DIGITS]!r}")
    return int(text)


def nanoseconds(text: bytes, what: str) -> int:
    """Read a PAX time: seconds since the epoch with an optional sign and fraction.

    Digits beyond nanoseconds are cut off, towards the past as for every time stamp.

    Raises:
        InvalidArchive: It is no such number.
    """
    whole, point, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = decimal(whole[1:] if negative else whole, what)
    part = decimal(fraction[:9].ljust(9, b"0"), what) if point and fraction else 0
    if fraction[9:] and not fraction[9:].isdigit():
        raise InvalidArchive(f"its {what} is no decimal number: {text[:40]!r}")
    total = seconds * 1_000_000_000 + part
    if not negative:
        return total
    return -total - (1 if fraction[9:].strip(b"0") else 0)
