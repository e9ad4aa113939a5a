"""Pytest plugin: as root, the whole run has a mount namespace of its own.

What a test mounts is seen by no one else, and whatever it leaves behind goes when the run ends, however it
ends. Ordinary users cannot mount; their run goes on without, and tests that mount skip themselves.
"""

from __future__ import annotations

import os
import tempfile

import pytest

_ON_DISK = "/var/tmp"
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})

_isolation = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's mount namespace, and see that temporary files lie on a disk."""
    config.stash[_isolation] = _isolate()
    _use_temporary_directory_on_disk()


def pytest_report_header(config: pytest.Config) -> str:
    """Say where this run stands."""
    return f"mounts: {config.stash[_isolation]}; temporary files: {tempfile.gettempdir()}"


def _isolate() -> str:
    if os.geteuid() != 0:
        return "none, because only root can mount"
    from hostspec.kernel.mounts import private_mount_namespace  # noqa: PLC0415 (ctypes, and only for root)

    try:
        private_mount_namespace()
    except PermissionError as refusal:
        return f"none, because this root may not mount ({refusal.strerror})"
    return "in a private namespace"


def _use_temporary_directory_on_disk() -> None:
    """Avoid tmpfs, which has no reflinks and, on many kernels, no ``user`` extended attributes."""
    from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 (as above)

    if filesystem_name(tempfile.gettempdir()) in _IN_MEMORY:
        os.environ["TMPDIR"] = tempfile.tempdir = _ON_DISK
