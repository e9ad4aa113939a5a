"""Pytest plugin: how property tests run.

No deadline, and no check of how long examples take to make: a property that writes real files waits for the
disk now and then, and a machine may be busy, which says nothing about it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Take the profile that hypothesis chose for this machine (in CI a repeatable one), less its deadline."""
    settings.register_profile(
        "hostspec",
        parent=settings(),
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("hostspec")
