"""Options for one layer as people write them: the limits that the contract has, and the driver's own."""

from __future__ import annotations

from collections.abc import Sequence

from hostspec.option_values import number, size_in_bytes
from hostspec.values import CreateOptions

__all__ = ["with_storage_options"]

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
            options = options._replace(size=size_in_bytes("storage option size", value))
        elif name == "inodes" and text not in _NONE:
            options = options._replace(inodes=number("storage option inodes", value))
        else:
            options = options._replace(others=(*options.others, (name, value)))
    return options
