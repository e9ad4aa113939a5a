"""The driver keeps the contract."""

from __future__ import annotations

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverUnavailable
from hostspec.testing import DriverConformance, DriverOpener
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.requirements import require_or_skip
from hostspec.testing.templates import Templates


class SmallImages(DriverFixtures):
    """Images with ext4, which begin small."""

    driver_options = (("size", "64M"),)

    @pytest.fixture
    def driver(self, driver_directory: str, open_driver_at: DriverOpener) -> GraphDriver:
        try:
            return open_driver_at(driver_directory, "loopimage", options=self.driver_options)
        except DriverUnavailable as unavailable:
            require_or_skip("loopimage", unavailable.reason)


class TestLoopimage(SmallImages, DriverConformance):
    """Everything; most of it is the fallbacks' work anyhow."""

    ways = ("native",)
    random_histories = 4


class TestLoopimageWithoutClones(SmallImages, Templates):
    """What the driver has a hook of its own for, without that hook."""

    ways = ("fallback",)
