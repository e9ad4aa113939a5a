"""The options that only this driver has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hostspec.directory_layers import refuse_option
from hostspec.errors import InvalidRequest

__all__ = ["least_size"]

# Not compiled before it is used: most stores have no such option.
_SIZE = r"(?ai)(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?"
_POWERS = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def least_size(options: Sequence[tuple[str, str]]) -> int:
    """Return ``min_space``: the least number of bytes that ``size`` may limit a layer to.

    In the Go driver this option also switches quotas on; here nothing does.

    Args:
        options: Names without the driver's prefix, and values.

    Raises:
        InvalidRequest: An option is unknown, or its value is no size.
    """
    least = 0
    for name, value in options:
        if name != "min_space":
            raise refuse_option("btrfs", name, "min_space")
        found = re.fullmatch(_SIZE, value.strip())
        if found is None:
            raise InvalidRequest(f"btrfs.{name}={value}", "must be a size, such as 512m or 10g")
        least = int(float(found[1]) * _POWERS[found[2].lower()])
    return least
