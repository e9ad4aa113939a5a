"""Which observers there are, and which of them the user wants.

Distributions announce observers in the entry-point group ``hostspec.observers``: the name is the observer's,
the value a callable without arguments that returns one. The environment variable ``HOSTSPEC_OBSERVERS`` names
those that are used, separated by commas. Nobody who does not ask for one pays for its import.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hostspec.entry_points import Announcement, announced

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostspec.observers import Observer

__all__ = ["ENTRY_POINT_GROUP", "VARIABLE", "chosen_observers", "installed_observers"]

ENTRY_POINT_GROUP = "hostspec.observers"
"""The entry-point group in which distributions announce observers."""

VARIABLE = "HOSTSPEC_OBSERVERS"
"""The environment variable that names the observers to use."""


def installed_observers() -> Sequence[Announcement]:
    """Return every installed observer, sorted by name, without importing any."""
    return sorted(announced(ENTRY_POINT_GROUP))


def chosen_observers() -> Sequence[Observer]:
    """Make the observers that the environment names.

    One that is not installed or cannot be made is logged, and left out: it must not break what it watches.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return [observer for name in names if name for observer in _made(name)]


def _made(name: str) -> Sequence[Observer]:
    found = [each for each in installed_observers() if each.name == name]
    if not found:
        known = ", ".join(each.name for each in installed_observers()) or "none"
        _complain(
            "%s names %r, which no installed distribution provides (installed: %s)", VARIABLE, name, known
        )
    made = []
    for each in found:
        try:
            made.append(cast("Callable[[], Observer]", each.load())())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code, and not worth an operation
            _complain("the observer %r of %s cannot be used: %s", name, each.distribution, error)
    return made


def _complain(message: str, *details: object) -> None:
    import logging  # noqa: PLC0415 - costs start-up time that only a failure is worth

    logging.getLogger(__name__).warning(message, *details)
