"""The driver keeps the contract."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverUnavailable
from hostspec.testing import DriverConformance, DriverOpener
from hostspec.testing.changes import Changes
from hostspec.testing.diff_apply import DiffApply
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.requirements import require_or_skip
from hostspec.testing.templates import Templates


class CompressedImages(DriverFixtures):
    """The driver as it comes."""

    @pytest.fixture
    def driver(self, driver_directory: str, open_driver_at: DriverOpener) -> GraphDriver:
        try:
            return open_driver_at(driver_directory, "erofs", options=self.driver_options)
        except DriverUnavailable as unavailable:
            require_or_skip("erofs", unavailable.reason)


class TestErofs(CompressedImages, DriverConformance):
    """Everything, with the driver's own hooks."""

    ways = ("native",)


class TestErofsByFallback(CompressedImages, Templates, DiffApply, Changes):
    """What the driver has hooks of its own for, without those hooks."""

    ways = ("fallback",)
