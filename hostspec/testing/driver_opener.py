"""How the suite opens the driver under test, and where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.plugins import DriverFactory, open_driver

__all__ = ["DriverOpener", "parent_of_homes"]

ON_DISK: Final = "/var/tmp"
"""Where homes are made, unless somebody says otherwise: ``/tmp`` may be in memory."""


def parent_of_homes(config: pytest.Config) -> str:
    """Return the directory that ``--home`` names, or one on a disk."""
    named = config.getoption("--driver-home", None)
    return os.path.abspath(named) if named else os.environ.get("TMPDIR", ON_DISK)


class DriverOpener:
    """Opens one driver, as often as a test wants, and closes it in the end."""

    def __init__(self, masked: frozenset[str]) -> None:
        """Open with ``masked`` hooks treated as not implemented."""
        self.masked = masked
        """The hooks that the driver under test is used without."""
        self.options: tuple[tuple[str, str], ...] = ()
        """The storage options that the driver was opened with."""
        self._opened: list[GraphDriver] = []
        self._arguments: tuple[str, str | DriverFactory, Sequence[tuple[str, str]]] | None = None

    def __call__(
        self,
        directory: str,
        driver: str | DriverFactory,
        *,
        options: Sequence[tuple[str, str]] = (),
        read_only_homes: Sequence[str] = (),
    ) -> GraphDriver:
        """Open ``driver`` with its home and its run root below ``directory``.

        Args:
            directory: An existing directory on the file system to test on.
            driver: The name of an installed driver, or a factory.
            options: The driver's storage options.
            read_only_homes: Homes of the same driver in additional stores.
        """
        self._arguments = directory, driver, options
        self.options = tuple(options)
        home, run_root = os.path.join(directory, "home"), os.path.join(directory, "run")
        if isinstance(driver, str):
            opened = open_driver(
                driver,
                home=home,
                run_root=run_root,
                options=options,
                read_only_homes=read_only_homes,
                masked=self.masked,
            )
        else:
            implementation = driver(home, run_root, tuple(options), tuple(read_only_homes))
            name = f"{driver.__module__}.{getattr(driver, '__name__', 'driver')}"
            opened = GraphDriver(name, implementation, home=home, run_root=run_root, masked=self.masked)
        self._opened.append(opened)
        return opened

    def again(self, *more_options: tuple[str, str]) -> GraphDriver:
        """Open the same driver at the same place once more, as another process would."""
        directory, driver, options = self._known_arguments()
        if more_options:
            return DriverOpener(self.masked)(directory, driver, options=(*options, *more_options))
        return self(directory, driver, options=options)

    def unmasked(self) -> GraphDriver:
        """Open the same driver at the same place with all its hooks."""
        directory, driver, options = self._known_arguments()
        opened = DriverOpener(frozenset())(directory, driver, options=options)
        self._opened.append(opened)
        return opened

    def elsewhere(self, directory: str) -> GraphDriver:
        """Open the same driver with an empty home below another existing directory."""
        _, driver, options = self._known_arguments()
        return self(directory, driver, options=options)

    def beside(self, driver: GraphDriver) -> GraphDriver:
        """Open the same driver with an empty home next to that of another one, which it may only read."""
        _, name, options = self._known_arguments()
        directory = os.path.join(os.path.dirname(driver.home), "beside")
        os.mkdir(directory)
        return self(directory, name, options=options, read_only_homes=[driver.home])

    def _known_arguments(self) -> tuple[str, str | DriverFactory, Sequence[tuple[str, str]]]:
        if self._arguments is None:
            raise RuntimeError("the fixture `driver` must open its driver with the fixture `open_driver_at`")
        return self._arguments

    def close(self) -> None:
        """Close everything opened."""
        while self._opened:
            self._opened.pop().cleanup()
