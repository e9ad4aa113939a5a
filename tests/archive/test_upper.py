"""An upper directory is looked at while a container writes to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hostspec.archive.upper import UpperFacts, inspect_upper, upper_changes
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.values import Change, ChangeKind


def test_what_is_deleted_while_it_is_inspected_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("x")
    listxattr = os.listxattr

    def deleting_it(path: str, *, follow_symlinks: bool = True) -> list[str]:
        (os.rmdir if os.path.isdir(path) else os.unlink)(path)
        return listxattr(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "listxattr", deleting_it)
    assert inspect_upper(str(tmp_path), form=WhiteoutForm.OVERLAY) == UpperFacts(False, False)  # noqa: FBT003
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("instead", [None, b"a file"])
def test_a_directory_that_is_deleted_while_changes_are_read_has_none(
    tmp_path: Path, instead: bytes | None
) -> None:
    (tmp_path / "a/below").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    changes = upper_changes(str(tmp_path), [], form=WhiteoutForm.OVERLAY)
    found = [next(changes)]
    while found[-1].path != "/a":
        found.append(next(changes))
    shutil.rmtree(tmp_path / "a")
    if instead is not None:
        (tmp_path / "a").write_bytes(instead)
    assert list(changes) == [Change("/b", ChangeKind.ADD)]
