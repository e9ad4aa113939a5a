from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.store.format.atomic import discard_leftover, replace_file


def test_a_file_gets_its_content_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    replace_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    replace_file(str(path), b"old")
    with path.open("rb") as reader:
        replace_file(str(path), [b"n", b"ew"])
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".tmp-table.json").write_bytes(b"left by somebody, and longer")
    replace_file(str(tmp_path / "table.json"), b"new")
    assert os.listdir(tmp_path) == ["table.json"]
    assert (tmp_path / "table.json").read_bytes() == b"new"


def test_what_a_killed_process_left_can_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    replace_file(str(path), b"old")
    (tmp_path / ".tmp-table.json").write_bytes(b"left")
    discard_leftover(str(path))
    discard_leftover(str(path))
    assert os.listdir(tmp_path) == ["table.json"]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"a part"
        raise RuntimeError

    path = tmp_path / "table.json"
    replace_file(str(path), b"old")
    with pytest.raises(RuntimeError):
        replace_file(str(path), failing())
    assert os.listdir(tmp_path) == ["table.json"]
    assert path.read_bytes() == b"old"
