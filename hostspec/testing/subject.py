"""What a report says about the driver that was tested, gathered where the tests run.

Under pytest-xdist the tests run in other processes than the report is written in, so what is
gathered travels as user properties of the tests' own reports.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import HostspecError
from hostspec.kernel.capabilities import in_user_namespace
from hostspec.kernel.filesystems import filesystem_name
from hostspec.plugins import installed_drivers
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.samples import MAPPED

__all__ = ["AREA", "SUBJECT", "describe_once"]

AREA = "hostspec-area"
"""User property of each test of the suite: the part of the suite that it belongs to."""
SUBJECT = "hostspec-subject"
"""User property of one test of each class and process: what the class tested."""

_described = pytest.StashKey[set[str]]()


def describe_once(request: pytest.FixtureRequest, driver: GraphDriver, opener: DriverOpener) -> None:
    """Note the area of a test, and with the first test of a class what is tested.

    Args:
        request: Of the test, which has run.
        driver: The driver under test.
        opener: What opened it.
    """
    node = request.node
    node.user_properties.append((AREA, _area_of(type(request.instance), node.originalname)))
    described = request.config.stash.setdefault(_described, set())
    subject = node.nodeid.rpartition("::")[0]
    if subject in described:
        return
    with suppress(HostspecError, OSError):
        # The fallbacks say of themselves that they cannot do what the driver can.
        native = opener.unmasked() if opener.masked else driver
        node.user_properties.append((SUBJECT, _describe(native, opener)))
        described.add(subject)


def _area_of(tested: type, test: str) -> str:
    return next((part.__name__ for part in tested.__mro__ if test in vars(part)), "")


def _describe(driver: GraphDriver, opener: DriverOpener) -> dict[str, object]:
    capabilities = driver.capabilities
    installed = [each for each in installed_drivers() if each.name == driver.name]
    shifting = driver.supports_shifting(MAPPED)
    place = driver.home if os.path.isdir(driver.home) else os.path.dirname(driver.home)
    return {
        "driver": driver.name,
        "distribution": " ".join(f"{each.distribution} {each.version}" for each in installed),
        "options": [f"{name}={value}" for name, value in opener.options],
        "contract": capabilities.contract,
        "capabilities": capabilities._asdict(),
        "shifts": f"{'yes' if shifting.possible else 'no'}: {shifting.reason}",
        "filesystem": filesystem_name(place),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "user": _user(),
    }


def _user() -> str:
    if os.geteuid() != 0:
        return "an ordinary user"
    return "root of a user namespace" if in_user_namespace() else "root"
