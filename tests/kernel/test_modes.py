"""Permission bits are set on what has a name, not on what a link of that name leads to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from hostspec.kernel.modes import change_mode


@pytest.fixture
def directory(tmp_path: Path) -> int:
    """An open directory with a file, a fifo, and a link to the file."""
    (tmp_path / "file").touch(0o600)
    os.mkfifo(tmp_path / "fifo", 0o600)
    os.symlink("file", tmp_path / "link")
    return os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)


def mode_of(directory: int, name: str) -> int:
    return stat.S_IMODE(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


@pytest.mark.parametrize("name", ["file", "fifo"])
def test_set_id_and_permission_bits_are_set_without_opening_the_file(directory: int, name: str) -> None:
    change_mode(name, 0o4711, dir_fd=directory)

    assert mode_of(directory, name) == 0o4711


def test_a_link_is_refused_and_what_it_leads_to_keeps_its_mode(directory: int) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)) as refusal:
        change_mode("link", 0o777, dir_fd=directory)

    assert refusal.value.errno == errno.EOPNOTSUPP
    assert mode_of(directory, "file") == 0o600
