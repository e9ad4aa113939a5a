from __future__ import annotations

import re
from pathlib import Path

TREE = Path(__file__).parents[2]
PAGE = TREE / "docs" / "store-format.md"
CITED = re.compile(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def test_every_test_that_the_page_cites_is_there() -> None:
    cited = CITED.findall(PAGE.read_text(encoding="utf-8"))
    missing = [f"{file}::{name}" for file, name in cited if f"def {name}(" not in source_of(file)]
    assert len(cited) > 50
    assert missing == []


def source_of(file: str) -> str:
    driver, _, rest = file.partition("/")
    inside = TREE / "plugins" / driver / "tests" / rest
    path = inside if rest and inside.is_file() else TREE / "tests" / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""
