"""What ``pytest --pyargs hostspec.testing --driver NAME`` runs."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.named_driver import named_driver
from hostspec.testing.suite import DriverConformance

__all__ = ["TestInstalledDriver"]


class TestInstalledDriver(DriverConformance):
    """Any installed driver, as the command line names it."""

    @pytest.fixture
    def driver(
        self, request: pytest.FixtureRequest, driver_directory: str, open_driver_at: DriverOpener
    ) -> GraphDriver:
        """The driver that ``--driver`` names."""
        name, options = named_driver(request.config)
        return open_driver_at(driver_directory, name, options=options)
