from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.store.format.unnamed_files import UnnamedFile, copy_to, link_as


@pytest.fixture(params=["unnamed", "named and unlinked"])
def unnamed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UnnamedFile]:
    """A file with content; also as it is where the file system has no files without names."""
    really = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return really(path, flags, mode, **options)

    with pytest.MonkeyPatch.context() as patch:
        if request.param != "unnamed":
            patch.setattr(os, "open", refusing)
        made = UnnamedFile(str(tmp_path / "made/directory"))
    with made as found:
        found.file.write(b"new")
        found.sync()
        yield found


def test_nothing_is_there_before_it_has_a_name(unnamed: UnnamedFile, tmp_path: Path) -> None:
    with unnamed:
        assert os.listdir(tmp_path / "made/directory") == []
    assert os.listdir(tmp_path / "made/directory") == []


@pytest.mark.parametrize("before", [None, b"old", b"old and longer"])
def test_it_takes_the_place_of_what_has_its_name(
    unnamed: UnnamedFile, tmp_path: Path, before: bytes | None
) -> None:
    path = tmp_path / "made/directory/name"
    if before is not None:
        path.write_bytes(before)
    link_as(unnamed.file, str(path))
    assert os.listdir(path.parent) == ["name"]
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_keeps_what_it_opened(unnamed: UnnamedFile, tmp_path: Path) -> None:
    path = tmp_path / "made/directory/name"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        link_as(unnamed.file, str(path))
        assert reader.read() == b"old"


def test_what_a_killed_process_left_gives_way(unnamed: UnnamedFile, tmp_path: Path) -> None:
    directory = tmp_path / "made/directory"
    (directory / ".tmp-name").write_bytes(b"left")
    link_as(unnamed.file, str(directory / "name"))
    assert os.listdir(directory) == ["name"]
    assert (directory / "name").read_bytes() == b"new"


def test_what_cannot_be_replaced_stays(unnamed: UnnamedFile, tmp_path: Path) -> None:
    path = tmp_path / "made/directory/name"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        link_as(unnamed.file, str(path))
    assert os.listdir(path.parent) == ["name"]


def test_a_file_with_a_name_shares_it_or_is_copied(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    with (tmp_path / "one").open("rb") as file:
        for _ in range(2):
            link_as(file, str(tmp_path / "two"))
        copy_to(file, str(tmp_path / "three"))
    one, two, three = ((tmp_path / name).stat() for name in ("one", "two", "three"))
    assert one.st_ino == two.st_ino != three.st_ino
    assert (tmp_path / "three").read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["one", "three", "two"]
