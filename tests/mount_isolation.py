"""Pytest plugin: as root, the whole run has a mount namespace of its own.

What a test mounts is seen by no one else, and whatever it leaves behind goes when the run ends, however it
ends. Ordinary users cannot mount; their run goes on without, and tests that mount skip themselves.
"""

from __future__ import annotations

import tempfile

import pytest

_isolation = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's mount namespace, and see that temporary files lie on a disk."""
    from hostspec.testing.isolation import (  # noqa: PLC0415 - after pytest marked it for its rewriting
        isolate_mounts,
        use_temporary_directory_on_disk,
    )

    config.stash[_isolation] = isolate_mounts()
    use_temporary_directory_on_disk()


def pytest_report_header(config: pytest.Config) -> str:
    """Say where this run stands."""
    return f"mounts: {config.stash[_isolation]}; temporary files: {tempfile.gettempdir()}"
