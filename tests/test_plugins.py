"""Discovery: drivers are found by entry point, opened by name, and one that is broken breaks no other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from hostspec.entry_points import Announcement
from hostspec.errors import DriverBroken, DriverNotInstalled, InvalidRequest, PrerequisitesMissing
from hostspec.plugins import ENTRY_POINT_GROUP, installed_drivers, open_driver

MINIMAL = Path(__file__).parent / "testing" / "minimal_driver" / "hostspec_minimal.py"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution that announces one driver, as pip lays it out."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(
        name: str, code: str, *, module: str = "", attribute: str = "make", version: str = "1.0"
    ) -> None:
        module = module or f"driver_{name}"
        (site / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = site / f"hostspec_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hostspec-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(
            f"[console_scripts]\nother = x:y\n\n[{ENTRY_POINT_GROUP}]\n{name} = {module}:{attribute}\n"
        )

    return install


def opened_by_name(name: str, directory: Path, **arguments: object) -> object:
    home, run_root = str(directory / "home"), str(directory / "run")
    return open_driver(name, home=home, run_root=run_root, **arguments)  # type: ignore[arg-type]


def test_an_installed_driver_is_found_with_its_distribution(install: Install) -> None:
    install("odd", "", version="3.4")

    assert Announcement("odd", "driver_odd:make", "hostspec-odd", "3.4") in installed_drivers()


def test_finding_drivers_agrees_with_the_standard_library(install: Install) -> None:
    install("odd", "")
    install("even", "")

    expected = {(each.name, each.value) for each in metadata.entry_points(group=ENTRY_POINT_GROUP)}

    assert {(each.name, each.value) for each in installed_drivers()} == expected


def test_finding_drivers_imports_none(install: Install) -> None:
    install("odd", "raise RuntimeError('imported')")

    installed_drivers()

    assert "driver_odd" not in sys.modules


def test_a_driver_is_opened_by_name(install: Install, tmp_path: Path) -> None:
    install("minimal", MINIMAL.read_text(), attribute="MinimalDriver")

    driver = open_driver("minimal", home=str(tmp_path / "home"), run_root=str(tmp_path / "run"))
    driver.create("layer")

    assert (driver.name, list(driver.list_layers())) == ("minimal", ["layer"])


def test_opening_a_driver_writes_nothing(install: Install, tmp_path: Path) -> None:
    install("minimal", MINIMAL.read_text(), attribute="MinimalDriver")

    opened_by_name("minimal", tmp_path)

    assert sorted(os.listdir(tmp_path)) == ["site-packages"]


def test_only_the_driver_that_is_opened_is_imported(install: Install, tmp_path: Path) -> None:
    install("minimal", MINIMAL.read_text(), attribute="MinimalDriver")
    install("bad", "raise RuntimeError('imported')")

    opened_by_name("minimal", tmp_path)

    assert {each.name for each in installed_drivers()} >= {"minimal", "bad"}


def test_a_driver_that_nobody_installed_is_reported_with_those_that_are(
    install: Install, tmp_path: Path
) -> None:
    install("odd", "")

    with pytest.raises(DriverNotInstalled, match=r"'zfs'.*installed: .*odd"):
        opened_by_name("zfs", tmp_path)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param("import no_such_module_anywhere", "no_such_module_anywhere", id="import-error"),
        pytest.param("1 / 0", "ZeroDivisionError", id="error-while-importing"),
        pytest.param("def make(:", "SyntaxError", id="syntax-error"),
        pytest.param("", "has no attribute 'make'", id="no-factory"),
        pytest.param("make = 1", "not callable", id="no-callable"),
        pytest.param("def make(*_):\n    raise ValueError('odd')", "ValueError: odd", id="factory-fails"),
        pytest.param("def make():\n    pass", "TypeError", id="factory-takes-no-arguments"),
        pytest.param("def make(*_):\n    return object()", "required hooks", id="no-driver"),
        pytest.param("def make(*_):\n    return None", "required hooks", id="nothing"),
    ],
)
def test_a_driver_that_is_broken_is_reported_with_its_reason(
    install: Install, tmp_path: Path, code: str, reason: str
) -> None:
    install("broken", code)

    with pytest.raises(DriverBroken, match=reason) as refusal:
        opened_by_name("broken", tmp_path)

    assert refusal.value.driver == "broken"


def test_a_driver_says_itself_why_it_cannot_be_used(install: Install, tmp_path: Path) -> None:
    install(
        "picky",
        "from hostspec.errors import PrerequisitesMissing\n"
        "def make(*_):\n    raise PrerequisitesMissing('picky', 'the program picky is missing')\n",
    )

    with pytest.raises(PrerequisitesMissing, match="the program picky is missing"):
        opened_by_name("picky", tmp_path)


def test_options_reach_the_driver(install: Install, tmp_path: Path) -> None:
    install("minimal", MINIMAL.read_text(), attribute="MinimalDriver")

    with pytest.raises(InvalidRequest, match=r"minimal\.colour"):
        opened_by_name("minimal", tmp_path, options=[("colour", "red")])


def test_a_name_that_two_distributions_claim_is_refused(install: Install, tmp_path: Path) -> None:
    install("same", "")
    info = tmp_path / "site-packages" / "hostspec_other-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nsame = driver_same:make\n")

    with pytest.raises(DriverBroken, match="hostspec-other and hostspec-same"):
        opened_by_name("same", tmp_path)


def test_a_copy_further_down_the_path_is_hidden_by_the_first(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("odd", "", version="2.0")
    older = tmp_path / "older" / "hostspec_odd-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nodd = driver_odd:make\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.parent)])

    assert [each.version for each in installed_drivers() if each.name == "odd"] == ["2.0"]
