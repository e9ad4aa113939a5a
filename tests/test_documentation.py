"""What is public is documented: pages name every hook, error, value, sub-command, flag and driver option."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec import errors, values
from hostspec.cli.surface import COMMANDS
from hostspec.errors import InvalidRequest
from hostspec.hookspecs import GraphDriverSpec
from hostspec.testing.requirements import require_or_skip
from hostspec_btrfs.options import least_size
from hostspec_overlay.options import parse_options
from hostspec_vfs import open_driver as open_vfs

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of all pages, as built from the sources and the docstrings, where a warning is an error."""
    try:
        import sphinx  # noqa: F401, PLC0415 - to see whether it is there
    except ImportError:
        require_or_skip("sphinx", "is not installed; pip install --group docs")
    built = tmp_path_factory.mktemp("docs")
    command = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "text", DOCS, built)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = "\n".join(page.read_text(encoding="utf-8") for page in built.rglob("*.txt"))
    shutil.rmtree(built)
    return text


def test_every_hook_is_documented(pages: str) -> None:
    hooks = [name for name in vars(GraphDriverSpec) if not name.startswith("_")]
    assert hooks
    assert [name for name in hooks if f" {name}(" not in pages] == []


def test_every_error_is_documented(pages: str) -> None:
    classes = [
        name
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__ == errors.__name__
    ]
    assert classes
    assert [name for name in classes if f"exception {name}" not in pages] == []


def test_every_field_of_every_value_is_documented(pages: str) -> None:
    fields = [field for name in values.__all__ for field in getattr(getattr(values, name), "_fields", ())]
    assert fields
    assert [field for field in fields if f"   {field}" not in pages] == []


def test_no_description_of_an_attribute_is_taken_for_its_type(pages: str) -> None:
    assert 'Limit in bytes, or "None": of its own content' in pages
    assert re.findall(r"^ +Type:$", pages, re.MULTILINE) == []


def test_every_sub_command_is_documented() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [each.names[0] for each in COMMANDS if f"### `{each.names[0]}`" not in text] == []
    flags = {spelling for each in COMMANDS for flag in each.flags for spelling in flag.spellings}
    assert sorted(flag for flag in flags if f"`{flag}" not in text) == []


@pytest.mark.parametrize(
    ("driver", "read_options"),
    [
        ("overlay", parse_options),
        ("btrfs", least_size),
        ("vfs", lambda options: open_vfs("/home", "/run", options, ())),
    ],
)
def test_every_option_that_a_driver_obeys_is_documented(
    driver: str, read_options: Callable[[tuple[tuple[str, str], ...]], object]
) -> None:
    with pytest.raises(InvalidRequest, match=" knows ") as refusal:
        read_options((("no_such_option", ""),))
    known = str(refusal.value).partition(" knows ")[2].split(", ")

    table = options_in_the_table()

    assert known
    assert [name for name in known if table.get(name, {}).get(driver, "refused") == "refused"] == []


def options_in_the_table() -> dict[str, dict[str, str]]:
    """Return what configuration.md says of each option and driver."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    heading, _, *rows = text[text.index("| option | overlay |") :].partition("\n\n")[0].splitlines()
    drivers = [cell.strip() for cell in heading.strip("|").split("|")][1:]
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        names, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        for name in re.findall(r"`(\w+)`", names):
            table[name] = dict(zip(drivers, cells, strict=True))
    return table
