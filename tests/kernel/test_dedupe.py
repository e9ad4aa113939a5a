from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostspec.kernel.dedupe import share_blocks
from hostspec.kernel.fiemap import extents

SIZE = (17 << 20) + 123  # more than one call shares, and no whole number of blocks


def shared(directory: Path, one: bytes, two: bytes) -> int:
    (directory / "one").write_bytes(one)
    (directory / "two").write_bytes(two)
    with (directory / "one").open("rb") as source, (directory / "two").open("rb") as target:
        os.fsync(target.fileno())
        return share_blocks(source.fileno(), target.fileno(), len(one))


def test_equal_files_share_every_block(xfs_directory: str) -> None:
    directory, content = Path(xfs_directory), os.urandom(SIZE)
    assert shared(directory, content, content) == SIZE
    with (directory / "one").open("rb") as one, (directory / "two").open("rb") as two:
        assert [each.physical for each in extents(one.fileno())] == [
            each.physical for each in extents(two.fileno())
        ]
    assert (directory / "two").read_bytes() == content


def test_different_files_share_nothing_and_keep_their_content(xfs_directory: str) -> None:
    directory, one, two = Path(xfs_directory), os.urandom(9000), os.urandom(9000)
    assert shared(directory, one, two) == 0
    assert ((directory / "one").read_bytes(), (directory / "two").read_bytes()) == (one, two)


def test_a_file_system_without_reflinks_refuses(ext4_directory: str) -> None:
    with pytest.raises(OSError, match=r"not supported|Inappropriate|Invalid"):
        shared(Path(ext4_directory), b"x" * 9000, b"x" * 9000)
