"""The btrfs driver keeps the contract."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing import DriverConformance, DriverOpener
from hostspec.testing.directory_layers import DirectoryLayersConformance
from hostspec.testing.idmapped_binds import IdmappedBindsConformance


class TestBtrfs(DriverConformance):
    """On btrfs."""

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, btrfs_directory: str) -> GraphDriver:
        return open_driver_at(btrfs_directory, "btrfs")


class TestDirectoriesOfBtrfs(IdmappedBindsConformance, DirectoryLayersConformance):
    """As the suite for drivers of whole directories wants them."""

    directory = "subvolumes"

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, btrfs_directory: str) -> GraphDriver:
        return open_driver_at(btrfs_directory, "btrfs")
