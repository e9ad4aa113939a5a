"""Options that every driver has whose layers are directories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostspec.errors import InvalidRequest

__all__ = ["NO_OPTIONS", "DirectoryOptions", "refuse_option", "split_options"]

_ON = frozenset({"1", "t", "true", "yes", "on"})
_OFF = frozenset({"0", "f", "false", "no", "off"})


class DirectoryOptions(NamedTuple):
    """What the user chose."""

    shifting: bool = True
    """``hostspec_shifting``: mount layers under ID maps, where the kernel can."""
    squash: bool = False
    """``ignore_chown_errors``: keep unpacking where an owner cannot be set."""


NO_OPTIONS = DirectoryOptions()
"""Nothing chosen."""

_NAMES = ("hostspec_shifting", "ignore_chown_errors")


def split_options(
    driver: str, options: Sequence[tuple[str, str]]
) -> tuple[DirectoryOptions, Sequence[tuple[str, str]]]:
    """Read the options that all have, and return the others as they are; of one given twice, the last counts.

    Args:
        driver: The driver's name, for messages.
        options: Names without the driver's prefix, and values.

    Raises:
        InvalidRequest: A value is neither true nor false.
    """
    parsed = DirectoryOptions()
    others: list[tuple[str, str]] = []
    for name, value in options:
        if name == "hostspec_shifting":
            parsed = parsed._replace(shifting=_on_or_off(f"{driver}.{name}", value))
        elif name == "ignore_chown_errors":
            parsed = parsed._replace(squash=_on_or_off(f"{driver}.{name}", value))
        else:
            others.append((name, value))
    return parsed, others


def refuse_option(driver: str, name: str, *known: str) -> InvalidRequest:
    """Return the error for an option that a driver does not know.

    Args:
        driver: Its name.
        name: The option, without the driver's prefix.
        known: The options that this driver has beside those that all have.
    """
    all_known = ", ".join(sorted((*_NAMES, *known)))
    return InvalidRequest(f"{driver}.{name}", f"is no option of this driver; it knows {all_known}")


def _on_or_off(option: str, value: str) -> bool:
    """Read a Go boolean, or the words that other options of ours take."""
    if value.lower() in _ON:
        return True
    if value.lower() in _OFF:
        return False
    raise InvalidRequest(f"{option}={value}", "must be true or false")
