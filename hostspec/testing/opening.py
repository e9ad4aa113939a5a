"""What every part of the suite stands on: its fixtures, and the ways in which it runs.

Natively, and with the driver's optional hooks masked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, TypeVar

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import PrerequisitesMissing
from hostspec.hookspecs import REQUIRED_HOOKS, GraphDriverSpec
from hostspec.kernel.capabilities import in_user_namespace
from hostspec.plugins import DriverFactory
from hostspec.testing.driver_opener import DriverOpener, parent_of_homes
from hostspec.testing.isolation import fresh_directory
from hostspec.testing.layers import Layers
from hostspec.testing.requirements import skip_by_probe
from hostspec.testing.subject import describe_once

__all__ = [
    "FALLBACK_HOOKS",
    "WAYS",
    "DriverFixtures",
    "natively",
]

_HOUSEKEEPING = frozenset({"seal", "commit", "reclaim", "cleanup", "close", "status", "metadata"})
"""Only the driver itself can do these: nobody else knows what it staged, put aside or mounted."""

FALLBACK_HOOKS: Final = (
    frozenset(name for name in vars(GraphDriverSpec) if not name.startswith("_"))
    - REQUIRED_HOOKS
    - _HOUSEKEEPING
)
"""The hooks whose work a fallback does as well, if slower."""

WAYS: Final = {"native": frozenset[str](), "fallback": FALLBACK_HOOKS}
"""The ways in which the suite runs, and the hooks that each masks."""


Test = TypeVar("Test", bound=Callable[..., None])


def natively(test: Test) -> Test:
    """Run a test once: it uses no hook that a fallback could do."""
    vars(test)["runs_natively"] = True
    return test


class _OpenerOfTests(DriverOpener):
    """Skips an ordinary user's tests of a driver that only root can open."""

    def __call__(
        self,
        directory: str,
        driver: str | DriverFactory,
        *,
        options: Sequence[tuple[str, str]] = (),
        read_only_homes: Sequence[str] = (),
    ) -> GraphDriver:
        try:
            return super().__call__(directory, driver, options=options, read_only_homes=read_only_homes)
        except PrerequisitesMissing as missing:
            if os.geteuid() == 0:
                raise
            skip_by_probe(missing.reason)


class DriverFixtures:
    """The fixtures on which every part of the suite stands."""

    driver_name: ClassVar[str] = ""
    """Name of the installed driver; or override the fixture :meth:`driver`."""
    driver_options: ClassVar[Sequence[tuple[str, str]]] = ()
    """Its storage options, names without its prefix."""
    ways: ClassVar[Sequence[str]] = tuple(WAYS)
    """In which of :data:`WAYS` to run; a driver without optional hooks needs only ``("native",)``."""
    known_gaps: ClassVar[Mapping[str, str]] = {}
    """What the driver is known not to do: the name of a test, or of one of its variants
    (``"test_a_deleted_file_is_gone[native-written]"``), and why. A gap that passes fails the run."""

    def __init_subclass__(cls) -> None:
        """Refuse a gap that names no test: somebody misspelt it, or the suite has changed."""
        super().__init_subclass__()
        for gap in cls.known_gaps:
            if not callable(getattr(cls, gap.partition("[")[0], None)):
                raise TypeError(f"{cls.__name__}.known_gaps: the suite has no test {gap!r}")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test once in each of ``ways``; ``-k native`` and ``-k fallback`` select one."""
        if "open_driver_at" in metafunc.fixturenames:
            once = vars(metafunc.function).get("runs_natively", False)
            metafunc.parametrize("open_driver_at", self.ways[:1] if once else self.ways, indirect=True)

    @pytest.fixture(autouse=True)
    def _gap_and_facts(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Expect a known gap to fail, and tell the report what was tested."""
        for name in (request.node.name, request.node.originalname):
            if name in self.known_gaps:
                request.node.add_marker(pytest.mark.xfail(reason=self.known_gaps[name], strict=True))
        recorder = request.config.getoption("--conformance-report", None)
        if not (recorder or request.config.getoption("--graph-driver", None)):
            yield
            return
        driver = request.getfixturevalue("driver")
        yield
        describe_once(request, driver, request.getfixturevalue("open_driver_at"))

    @pytest.fixture
    def open_driver_at(self, request: pytest.FixtureRequest) -> Iterator[DriverOpener]:
        """Opens the driver under test in a directory: ``open_driver_at(directory, "name")``."""
        opener = _OpenerOfTests(WAYS[getattr(request, "param", "native")])
        try:
            yield opener
        finally:
            opener.close()

    @pytest.fixture
    def driver_directory(self, request: pytest.FixtureRequest) -> Iterator[str]:
        """An empty directory on the file system to test on, which ``--home`` may name."""
        with fresh_directory(parent_of_homes(request.config)) as directory:
            yield directory

    @pytest.fixture
    def driver(self, driver_directory: str, open_driver_at: DriverOpener) -> GraphDriver:
        """The driver under test, opened at a home that is empty."""
        if not self.driver_name:
            raise NotImplementedError(
                f"{type(self).__name__} must name its driver: driver_name = 'the name', or a fixture "
                "`driver` that returns open_driver_at(an empty directory, 'the name or a factory')"
            )
        return open_driver_at(driver_directory, self.driver_name, options=self.driver_options)

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
        """Skips who may not give files to anybody or make devices, such as root of a user namespace."""
        if os.geteuid() != 0 or in_user_namespace():
            skip_by_probe("gives files to several users and makes devices, which only the machine's root may")
