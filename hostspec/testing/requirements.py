"""What a test needs from the machine, and when its absence is a failure.

A test that cannot run here is skipped with its reason. Where it must run, the environment
variable ``HOSTSPEC_REQUIRE`` names the features, separated by commas
(``HOSTSPEC_REQUIRE=overlay,btrfs,vfs,xfs``), and each missing one fails its tests instead:
a run in which everything was skipped can then not be green.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = [
    "REQUIRE_VARIABLE",
    "require_or_skip",
    "required_features",
    "skip_by_capability",
    "skip_by_probe",
]

REQUIRE_VARIABLE = "HOSTSPEC_REQUIRE"
"""Names the features without which the test run fails."""


def required_features() -> frozenset[str]:
    """Return the features that the environment says must be tested.

    Returns:
        Names of drivers and file systems, as written in ``HOSTSPEC_REQUIRE``; empty when it is not set.
    """
    names = (name.strip() for name in os.environ.get(REQUIRE_VARIABLE, "").split(","))
    return frozenset(name for name in names if name)


def require_or_skip(feature: str, reason: str) -> NoReturn:
    """End the running test, whose feature is missing here: as failed where it is required, else as skipped.

    Args:
        feature: What is missing: the name of a driver or file system, such as ``"btrfs"``.
        reason: Why, and what would help; shown in the summary of the run.
    """
    # The frame of this function would say nothing about the test.
    __tracebackhide__ = True
    if feature in required_features():
        pytest.fail(f"{feature} is required by {REQUIRE_VARIABLE}, but: {reason}", pytrace=False)
    pytest.skip(f"{feature}: {reason}")


def skip_by_capability(what: str) -> NoReturn:
    """End the running test, which asks for something that the driver's ``Capabilities`` deny.

    Args:
        what: A sentence of which the driver is the subject: ``"does not stage layers"``.
    """
    __tracebackhide__ = True
    pytest.skip(f"capability: the driver {what}")


def skip_by_probe(reason: str) -> NoReturn:
    """End the running test, for which the machine, its privileges or the driver's own probe lack something.

    Args:
        reason: What is missing, as the probe said it.
    """
    __tracebackhide__ = True
    pytest.skip(f"probe: {reason}")
