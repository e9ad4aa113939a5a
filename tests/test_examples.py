"""The example drivers use only what every author of a driver may use, and their READMEs are true."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS / "examples"
PLUGINS = DOCS.parent / "plugins"
DISTRIBUTIONS = [
    EXAMPLES / "erofs",
    EXAMPLES / "loopimage",
    *map(PLUGINS.joinpath, ("btrfs", "overlay", "vfs")),
]

OPEN_TO_DRIVERS = (
    "archive",
    "directory_layers",
    "disk_usage",
    "errors",
    "hookspecs",
    "idmap",
    "idshift",
    "kernel",
    "option_values",
    "ownership",
    "treecopy",
    "treewalk",
    "values",
    "working_area",
)
"""What docs/architecture.md lets a driver see, by the first name below ``hostspec``."""


def imported(module: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of all that a file imports from hostspec."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(each.name.split(".")[0] == "hostspec" for each in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hostspec":
            for each in node.names:
                yield node.module or "", each.name


@pytest.mark.parametrize("example", ["erofs", "loopimage"])
def test_an_example_driver_imports_only_what_is_open_to_drivers(example: str) -> None:
    found = {
        (module, name)
        for path in EXAMPLES.glob(f"{example}/hostspec_{example}/*.py")
        for module, name in imported(path)
    }

    assert len(found) > 10
    assert [each for each in sorted(found) if each[0].split(".")[1] not in OPEN_TO_DRIVERS] == []
    assert [
        each for each in sorted(found) if any(part.startswith("_") for part in ".".join(each).split("."))
    ] == []


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=attrgetter("name"))
def test_what_a_driver_imports_is_in_the_reference(distribution: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    documented = {*re.findall(r"automodule:: (\S+)", pages), "hostspec.kernel"}
    found = {module for path in distribution.glob("hostspec_*/*.py") for module, _ in imported(path)}

    assert found
    assert found - documented == set()


@pytest.mark.parametrize("example", ["erofs", "loopimage"])
def test_every_option_of_an_example_driver_is_in_its_readme(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / example)
    open_driver = importlib.import_module(f"hostspec_{example}").open_driver
    with pytest.raises(InvalidRequest, match=" knows ") as refusal:
        open_driver(str(tmp_path / "home"), str(tmp_path / "run"), (("no_such_option", ""),), ())
    told = re.split(r", | and ", str(refusal.value).partition(" knows ")[2])
    known = {found[1] for each in told if (found := re.fullmatch(r"(\w+)(=.*)?", each))}

    readme = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    options = readme[readme.index("## Options") :].partition("## What")[0]

    assert known
    assert {name for name in known if not re.search(rf"`{name}[`=]", options)} == set()


@pytest.mark.parametrize("example", ["erofs", "loopimage"])
def test_every_module_that_a_readme_tells_of_is_there(example: str) -> None:
    readme = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")

    named = set(re.findall(r"`(\w+\.py)`", readme))

    assert named
    assert {
        each for each in named if not (EXAMPLES / example / f"hostspec_{example}" / each).is_file()
    } == set()
