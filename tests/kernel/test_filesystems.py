from __future__ import annotations

import os
import tempfile

import pytest

from hostspec.kernel.filesystems import filesystem_name, sync_filesystem


def test_each_file_system_is_called_by_its_name(
    ext4_directory: str, xfs_directory: str, btrfs_directory: str
) -> None:
    names = [filesystem_name(path) for path in (ext4_directory, xfs_directory, btrfs_directory, "/proc")]
    assert names == ["ext4", "xfs", "btrfs", "proc"]


def test_a_path_that_does_not_exist_is_named_in_the_error() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        filesystem_name("/nowhere/at/all")
    assert caught.value.filename == "/nowhere/at/all"


def test_a_file_system_is_synced_by_path_and_by_descriptor() -> None:
    with tempfile.TemporaryDirectory() as directory:
        sync_filesystem(directory)
        descriptor = os.open(directory, os.O_RDONLY)
        sync_filesystem(descriptor)
        os.close(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            sync_filesystem(descriptor)
