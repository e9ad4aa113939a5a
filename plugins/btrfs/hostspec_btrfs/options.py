"""The options that only this driver has."""

from __future__ import annotations

from collections.abc import Sequence

from hostspec.directory_layers import refuse_option

__all__ = ["least_size"]


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
        from hostspec.option_values import size_in_bytes  # noqa: PLC0415 - most stores have no such option

        least = size_in_bytes(f"btrfs.{name}", value)
    return least
