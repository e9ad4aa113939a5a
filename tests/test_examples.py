"""The example drivers use what every author of a driver may use, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS / "examples"

OPEN_TO_DRIVERS = (
    "archive",
    "directory_layers",
    "disk_usage",
    "errors",
    "hookspecs",
    "idmap",
    "idshift",
    "kernel",
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


@pytest.mark.parametrize("example", ["erofs", "loopimage"])
def test_what_an_example_driver_imports_is_in_the_reference(example: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    documented = set(re.findall(r"automodule:: (\S+)", pages))
    found = {
        module for path in EXAMPLES.glob(f"{example}/hostspec_{example}/*.py") for module, _ in imported(path)
    }

    assert found - documented == set()
