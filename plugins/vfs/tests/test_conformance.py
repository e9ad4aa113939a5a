"""The vfs driver keeps the contract."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing import DriverConformance, DriverOpener
from hostspec.testing.directory_layers import DirectoryLayersConformance
from hostspec.testing.idmapped_binds import IdmappedBindsConformance


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


class TestDirectoriesOfVfs(IdmappedBindsConformance, DirectoryLayersConformance):
    """As the suite for drivers of whole directories wants them."""

    directory = "dir"

    @pytest.fixture(params=["ext4_directory", "xfs_directory"])
    def driver(self, request: pytest.FixtureRequest, open_driver_at: DriverOpener) -> GraphDriver:
        return open_driver_at(request.getfixturevalue(request.param), "vfs")
