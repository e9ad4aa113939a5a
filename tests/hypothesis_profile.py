"""Pytest plugin: how property tests run.

No deadline: a property that writes real files waits for the disk now and then, which says nothing about it.
"""

from __future__ import annotations

from hypothesis import settings


def pytest_configure() -> None:
    """Take the profile that hypothesis chose for this machine (in CI a repeatable one), less its deadline."""
    settings.register_profile("hostspec", parent=settings(), deadline=None, print_blob=True)
    settings.load_profile("hostspec")
