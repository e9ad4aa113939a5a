"""Project numbers, which XFS keeps on every kernel; limits are tested with the overlay driver in tests/vm."""

from __future__ import annotations

import os

import pytest

from hostspec.kernel.project_quotas import give_project, project_of, set_limits, usage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a scratch file system")


def test_what_is_made_in_a_directory_inherits_its_project(xfs_directory: str) -> None:
    directory = f"{xfs_directory}/directory"
    os.mkdir(directory)
    assert project_of(directory) == 0

    give_project(directory, 4_000_000_000)
    os.makedirs(f"{directory}/below/further")
    with open(f"{directory}/file", "w", encoding="utf-8"):
        pass

    found = {project_of(f"{directory}{name}") for name in ("", "/below", "/below/further", "/file")}
    assert found == {4_000_000_000}


def test_a_directory_can_leave_its_project(xfs_directory: str) -> None:
    directory = f"{xfs_directory}/directory"
    os.mkdir(directory)
    give_project(directory, 7)
    os.mkdir(f"{directory}/before")
    give_project(directory, 0)
    os.mkdir(f"{directory}/after")

    found = [project_of(f"{directory}{name}") for name in ("", "/before", "/after")]
    assert found == [0, 7, 0]


def test_a_directory_of_another_project_cannot_be_moved_in(xfs_directory: str) -> None:
    for name, project in (("one", 7), ("other", 8)):
        os.mkdir(f"{xfs_directory}/{name}")
        give_project(f"{xfs_directory}/{name}", project)
    with pytest.raises(OSError, match="cross-device"):
        os.rename(f"{xfs_directory}/one", f"{xfs_directory}/other/one")


def test_limits_need_a_file_system_that_keeps_them(xfs_directory: str) -> None:
    with pytest.raises(OSError, match=r"\[Errno"):
        set_limits(xfs_directory, 7, size=1 << 20, inodes=None)
    with pytest.raises(OSError, match=r"\[Errno"):
        usage(xfs_directory, 7)
