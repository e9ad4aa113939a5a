"""Sizes and numbers in options, as people write them: the same for the store and for every driver."""

from __future__ import annotations

import re

from hostspec.errors import InvalidRequest

__all__ = ["number", "size_in_bytes"]

# As the Go library reads sizes (units.RAMInBytes).
_SIZE = r"(?ai)(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?"
_POWERS = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def size_in_bytes(option: str, value: str) -> int:
    """Read a size: ``512``, ``512m``, ``1.5 GiB``; units are powers of 1024, in capitals or not.

    Args:
        option: What the option is called, for the error.
        value: What was given.

    Returns:
        Bytes.

    Raises:
        InvalidRequest: It is no size.
    """
    found = re.fullmatch(_SIZE, value.strip())
    if found is None:
        raise InvalidRequest(f"{option}={value}", "must be a size, such as 512m or 10g")
    return int(float(found[1]) * _POWERS[found[2].lower()])


def number(option: str, value: str) -> int:
    """Read a number that is not negative, in decimal.

    Args:
        option: What the option is called, for the error.
        value: What was given.

    Raises:
        InvalidRequest: It is no such number.
    """
    text = value.strip()
    if not (text.isascii() and text.isdecimal()):
        raise InvalidRequest(f"{option}={value}", "must be a number")
    return int(text)
