"""Pytest plugin: of each class of tests, nothing more is run once a test of it has failed."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import Phase, settings

_caught = pytest.StashKey[set[str]]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin with classes that have not failed; let Hypothesis shorten no example that has failed."""
    config.stash[_caught] = set()
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("first-failure", parent=settings(), phases=phases, derandomize=True)
    settings.load_profile("first-failure")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what comes after the first failure of a class."""
    if _class_of(item.nodeid) in item.config.stash[_caught]:
        pytest.skip("this fault has been caught")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a class that has failed."""
    report = yield
    if report.failed:
        item.config.stash[_caught].add(_class_of(item.nodeid))
    return report


def _class_of(nodeid: str) -> str:
    return nodeid.rpartition("::")[0]
