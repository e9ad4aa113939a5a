"""How the suite opens the driver under test: natively, and with its native optional hooks masked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.hookspecs import REQUIRED_HOOKS, GraphDriverSpec
from hostspec.plugins import DriverFactory, open_driver
from hostspec.testing.layers import Layers

__all__ = ["FALLBACK_HOOKS", "WAYS", "DriverFixtures", "DriverOpener"]

_HOUSEKEEPING = frozenset({"commit", "reclaim", "cleanup", "status", "metadata"})
"""Only the driver itself can do these: nobody else knows what it staged, put aside or mounted."""

FALLBACK_HOOKS: Final = (
    frozenset(name for name in vars(GraphDriverSpec) if not name.startswith("_"))
    - REQUIRED_HOOKS
    - _HOUSEKEEPING
)
"""The hooks whose work a fallback does as well, if slower."""

WAYS: Final = {"native": frozenset[str](), "fallback": FALLBACK_HOOKS}
"""The ways in which the suite runs, and the hooks that each masks."""


class DriverOpener:
    """Opens one driver, as often as a test wants, and closes it in the end."""

    def __init__(self, masked: frozenset[str]) -> None:
        """Open with ``masked`` hooks treated as not implemented."""
        self.masked = masked
        """The hooks that the driver under test is used without."""
        self._opened: list[GraphDriver] = []
        self._arguments: tuple[str, str | DriverFactory, Sequence[tuple[str, str]]] | None = None

    def __call__(
        self, directory: str, driver: str | DriverFactory, *, options: Sequence[tuple[str, str]] = ()
    ) -> GraphDriver:
        """Open ``driver`` with its home and its run root below ``directory``.

        Args:
            directory: An existing directory on the file system to test on.
            driver: The name of an installed driver, or a factory.
            options: The driver's storage options.
        """
        self._arguments = directory, driver, options
        home, run_root = os.path.join(directory, "home"), os.path.join(directory, "run")
        if isinstance(driver, str):
            opened = open_driver(driver, home=home, run_root=run_root, options=options, masked=self.masked)
        else:
            implementation = driver(home, run_root, tuple(options), ())
            name = f"{driver.__module__}.{getattr(driver, '__name__', 'driver')}"
            opened = GraphDriver(name, implementation, home=home, run_root=run_root, masked=self.masked)
        self._opened.append(opened)
        return opened

    def again(self) -> GraphDriver:
        """Open the same driver at the same place once more, as another process would."""
        if self._arguments is None:
            raise RuntimeError("the fixture `driver` must open its driver with the fixture `open_driver_at`")
        directory, driver, options = self._arguments
        return self(directory, driver, options=options)

    def close(self) -> None:
        """Close everything opened."""
        while self._opened:
            self._opened.pop().cleanup()


class DriverFixtures:
    """The fixtures on which every part of the suite stands; ``driver`` is to be supplied."""

    ways: ClassVar[Sequence[str]] = tuple(WAYS)
    """In which of :data:`WAYS` to run; a driver without optional hooks needs only ``("native",)``."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test once in each of ``ways``; ``-k native`` and ``-k fallback`` select one."""
        if "open_driver_at" in metafunc.fixturenames:
            metafunc.parametrize("open_driver_at", self.ways, indirect=True)

    @pytest.fixture
    def open_driver_at(self, request: pytest.FixtureRequest) -> Iterator[DriverOpener]:
        """Opens the driver under test in a directory: ``open_driver_at(directory, "name")``."""
        opener = DriverOpener(WAYS[getattr(request, "param", "native")])
        try:
            yield opener
        finally:
            opener.close()

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener) -> GraphDriver:
        """The driver under test, opened at a home that is empty."""
        raise NotImplementedError(
            "override the fixture `driver`, and return open_driver_at(an empty directory, 'the driver')"
        )

    @pytest.fixture
    def layers_of_mine(self, driver: GraphDriver) -> Layers:
        """Makes layers with the driver under test, of files that belong to whoever runs the suite."""
        return Layers(driver)

    @pytest.fixture
    def layers(self, privileged: None, driver: GraphDriver) -> Layers:  # noqa: ARG002
        """Makes layers with the driver under test, of files that belong to anybody."""
        return Layers(driver)

    @pytest.fixture
    def privileged(self) -> None:
        """Skips who may not give files away or make device nodes."""
        if os.geteuid() != 0:
            pytest.skip("gives files to several users and makes devices, which only root may")
