"""How the suite opens the driver under test: natively, and with its native optional hooks masked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, TypeVar

import pytest

from hostspec.driver import GraphDriver
from hostspec.hookspecs import REQUIRED_HOOKS, GraphDriverSpec
from hostspec.plugins import DriverFactory, open_driver
from hostspec.testing.isolation import fresh_directory
from hostspec.testing.layers import Layers
from hostspec.testing.requirements import skip_by_probe

__all__ = [
    "FALLBACK_HOOKS",
    "WAYS",
    "DriverFixtures",
    "DriverOpener",
    "natively",
    "parent_of_homes",
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

ON_DISK: Final = "/var/tmp"
"""Where homes are made, unless somebody says otherwise: ``/tmp`` may be in memory."""


def natively(test: Test) -> Test:
    """Run a test once: it uses no hook that a fallback could do."""
    vars(test)["runs_natively"] = True
    return test


def parent_of_homes(config: pytest.Config) -> str:
    """Return the directory that ``--home`` names, or one on a disk."""
    named = config.getoption("--home", None)
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
        self, directory: str, driver: str | DriverFactory, *, options: Sequence[tuple[str, str]] = ()
    ) -> GraphDriver:
        """Open ``driver`` with its home and its run root below ``directory``.

        Args:
            directory: An existing directory on the file system to test on.
            driver: The name of an installed driver, or a factory.
            options: The driver's storage options.
        """
        self._arguments = directory, driver, options
        self.options = tuple(options)
        home, run_root = os.path.join(directory, "home"), os.path.join(directory, "run")
        if isinstance(driver, str):
            opened = open_driver(driver, home=home, run_root=run_root, options=options, masked=self.masked)
        else:
            implementation = driver(home, run_root, tuple(options), ())
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

    def elsewhere(self, directory: str) -> GraphDriver:
        """Open the same driver with an empty home below another existing directory."""
        _, driver, options = self._known_arguments()
        return self(directory, driver, options=options)

    def _known_arguments(self) -> tuple[str, str | DriverFactory, Sequence[tuple[str, str]]]:
        if self._arguments is None:
            raise RuntimeError("the fixture `driver` must open its driver with the fixture `open_driver_at`")
        return self._arguments

    def close(self) -> None:
        """Close everything opened."""
        while self._opened:
            self._opened.pop().cleanup()


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
        if not (recorder or request.config.getoption("--driver", None)):
            yield
            return
        from hostspec.testing.subject import describe_once  # noqa: PLC0415 - only reports need it

        driver = request.getfixturevalue("driver")
        yield
        describe_once(request, driver, request.getfixturevalue("open_driver_at"))

    @pytest.fixture
    def open_driver_at(self, request: pytest.FixtureRequest) -> Iterator[DriverOpener]:
        """Opens the driver under test in a directory: ``open_driver_at(directory, "name")``."""
        opener = DriverOpener(WAYS[getattr(request, "param", "native")])
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
        """Skips who may not give files away or make device nodes."""
        if os.geteuid() != 0:
            skip_by_probe("gives files to several users and makes devices, which only root may")
