"""What differs from kernel to kernel, as far as drivers choose their ways by it."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["EXPECTED", "NEWEST", "SERIES", "Expectation", "series_here"]

NEWEST = "newest"
"""Stands for whatever series is the newest that Debian offers."""


class Expectation(NamedTuple):
    """What must be found on a kernel."""

    overlay_mounts: str
    """The best way of mounting overlays (``hostspec_overlay.mounting.MountWay``)."""
    shifts: bool
    """Whether there are idmapped mounts (since 5.12), and overlayfs takes them (since 5.19)."""


EXPECTED = {
    "5.10": Expectation("string", shifts=False),
    "6.1": Expectation("string", shifts=True),
    "6.12": Expectation("lowerdir+", shifts=True),
    NEWEST: Expectation("detached", shifts=True),
}

SERIES = tuple(EXPECTED)
"""The series that are tested: what Debian offers, old and new."""


def series_here() -> str:
    """Return the series to which the running kernel belongs."""
    here = ".".join(os.uname().release.split(".")[:2])
    return here if here in EXPECTED else NEWEST
