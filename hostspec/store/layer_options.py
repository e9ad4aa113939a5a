"""Options for one layer as people write them: the limits that the contract has, and the driver's own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hostspec.errors import InvalidRequest
from hostspec.values import CreateOptions

__all__ = ["with_storage_options"]

_SIZE = r"(?ai)(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?"  # as the Go library reads sizes (units.RAMInBytes)
_POWERS = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
_NONE = frozenset({"", "0"})


def with_storage_options(options: CreateOptions, given: Sequence[tuple[str, str]]) -> CreateOptions:
    """Return how a layer is to be made, with ``size`` and ``inodes`` as every driver understands them.

    A limit of 0 is left to the driver: only one with limits of its own knows what it lifts.

    Args:
        options: What is to be changed.
        given: Names and values; of one given twice the last counts.

    Raises:
        InvalidRequest: A size is no size, or a number no number.
    """
    for name, value in given:
        text = value.strip()
        if name == "size" and text not in _NONE:
            options = options._replace(size=_bytes(value))
        elif name == "inodes" and text not in _NONE:
            options = options._replace(inodes=_number(value))
        else:
            options = options._replace(others=(*options.others, (name, value)))
    return options


def _bytes(value: str) -> int:
    found = re.fullmatch(_SIZE, value.strip())
    if found is None:
        raise InvalidRequest(f"storage option size={value}", "must be a size, such as 512m or 10g")
    return int(float(found[1]) * _POWERS[found[2].lower()])


def _number(value: str) -> int:
    text = value.strip()
    if not (text.isascii() and text.isdecimal()):
        raise InvalidRequest(f"storage option inodes={value}", "must be a number")
    return int(text)
