"""Pytest plugin: the options of the conformance suite, its report, and its mount namespace.

An entry point, since ``pytest --pyargs hostspec.testing`` reads no ``conftest.py`` before it parses its
options. It is therefore imported by every run of pytest where hostspec is installed, and imports
nothing until a test of the suite is there.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import suppress

import pytest

__all__ = [
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_load_initial_conftests",
]

_SHORT_NAMES = {"--driver": "--graph-driver", "--home": "--driver-home"}
"""Names of options that are ours where nobody else has them, and the names that always are."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("hostspec", "conformance of graph drivers (hostspec)")
    group.addoption(
        "--graph-driver",
        metavar="NAME",
        help="the installed driver that `--pyargs hostspec.testing` is to prove; "
        "or --driver, where no other plugin has an option of that name",
    )
    group.addoption(
        "--driver-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a storage option of that driver, without its prefix; may be repeated",
    )
    group.addoption(
        "--driver-home",
        metavar="DIR",
        help="where homes of the driver are made, hence the file system to test on "
        "(default: a temporary directory on disk); or --home, as above",
    )
    group.addoption(
        "--conformance-report",
        metavar="FILE",
        help="write what the suite found to FILE, as its name ends: .html, .json or .md",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> Generator[None, None, None]:
    """Take the short names of options, if they are used, and no plugin and no conftest.py has them.

    Others have a ``--driver``, too, and two of them would break every run of pytest where both are installed.
    """
    yield
    if not any(arg.partition("=")[0] in _SHORT_NAMES for arg in args):
        return
    with suppress(pytest.UsageError):  # which pytest meets again, and says
        _, unknown = parser.parse_known_and_unknown_args(args)
        group = parser.getgroup("hostspec")
        for name in sorted(_SHORT_NAMES.keys() & {arg.partition("=")[0] for arg in unknown}):
            always = _SHORT_NAMES[name]
            group.addoption(name, dest=always.strip("-").replace("-", "_"), help=f"the same as {always}")


def pytest_configure(config: pytest.Config) -> None:
    """See that the driver can be opened, and record results where somebody wants to see them.

    Workers of xdist send theirs to the controller.
    """
    if hasattr(config, "workerinput"):
        return
    if config.getoption("--graph-driver"):
        from hostspec.testing.named_driver import check_named_driver  # noqa: PLC0415 - only for who proves one

        check_named_driver(config)
    if config.getoption("--graph-driver") or config.getoption("--conformance-report"):
        from hostspec.testing.recording import Recorder  # noqa: PLC0415 - as above

        config.pluginmanager.register(Recorder(config.getoption("--conformance-report")), "hostspec-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to prove a driver that nobody named."""
    if config.getoption("--graph-driver") or "hostspec.testing.test_installed_driver" not in sys.modules:
        return
    if any(item.path.name == "test_installed_driver.py" for item in items):
        from hostspec.testing.named_driver import named_driver  # noqa: PLC0415 - as above

        named_driver(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the machine's mount namespace, as soon as it is known that tests of the suite will run."""
    opening = sys.modules.get("hostspec.testing.opening")
    if opening is None or session.config.option.collectonly:
        return
    tested = (getattr(item, "cls", None) or object for item in session.items)
    if any(issubclass(each, opening.DriverFixtures) for each in tested):
        from hostspec.testing.isolation import isolate_mounts  # noqa: PLC0415 - as above

        isolate_mounts()
