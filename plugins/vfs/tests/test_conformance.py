"""The vfs driver keeps the contract."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing import DriverConformance, DriverOpener


class TestVfsOnExt4(DriverConformance):
    """On a file system without reflinks."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, ext4_directory: str) -> GraphDriver:
        return open_driver_at(ext4_directory, "vfs")


class TestVfsOnXfs(DriverConformance):
    """On a file system with reflinks."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, xfs_directory: str) -> GraphDriver:
        return open_driver_at(xfs_directory, "vfs")
