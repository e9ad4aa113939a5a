"""The conformance suite on ext4 and on XFS, in every way of mounting that matters."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing import DriverConformance, DriverOpener


class TestOnExt4(DriverConformance):
    """As it comes."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, ext4_directory: str) -> GraphDriver:
        return open_driver_at(ext4_directory, "overlay")


class TestOnXfs(DriverConformance):
    """Where copies are reflinks."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, xfs_directory: str) -> GraphDriver:
        return open_driver_at(xfs_directory, "overlay")


class TestWithMetacopy(DriverConformance):
    """Where the store has ``metacopy=on``."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, ext4_directory: str) -> GraphDriver:
        return open_driver_at(ext4_directory, "overlay", options=[("mountopt", "metacopy=on")])


class TestByTheOldestWayOfMounting(DriverConformance):
    """As on a kernel without the new mount API, which also makes all that a new ID map changes."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, ext4_directory: str) -> GraphDriver:
        options = [("hostspec_mount_api", "classic"), ("hostspec_direct_pass", "off")]
        return open_driver_at(ext4_directory, "overlay", options=options)
