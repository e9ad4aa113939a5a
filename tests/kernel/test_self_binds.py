from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import bind, mount, unmount
from hostspec.kernel.self_binds import bind_on_itself, unbind_from_itself

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def directory(tmp_path: Path) -> str:
    found = tmp_path / "home"
    found.mkdir()
    return str(found)


def test_a_directory_is_bound_on_itself_once_and_released(directory: str) -> None:
    bind_on_itself(directory)
    bind_on_itself(directory)
    assert mount_points(directory) == [directory]
    unbind_from_itself(directory)
    assert mount_points(directory) == []
    unbind_from_itself(directory)


def test_what_is_mounted_inside_keeps_the_bind(directory: str) -> None:
    bind_on_itself(directory)
    inner = os.path.join(directory, "inner")
    os.mkdir(inner)
    mount("tmpfs", inner, "tmpfs")
    unbind_from_itself(directory)
    assert mount_points(directory) == [inner, directory]
    unmount(inner)
    unbind_from_itself(directory)
    assert mount_points(directory) == []


def test_another_file_system_there_is_left_alone(directory: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    bind(str(other), directory)
    unbind_from_itself(directory)
    assert mount_points(directory) == [directory]
    unmount(directory)
