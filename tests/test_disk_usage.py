from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from hostspec.disk_usage import _covered, measure_tree
from hostspec.kernel.reflink import reflink


def test_a_tree_occupies_what_du_says(ext4_directory: str) -> None:
    root = Path(ext4_directory, "tree")
    (root / "below").mkdir(parents=True)
    (root / "file").write_bytes(os.urandom(300_000))
    os.link(root / "file", root / "below" / "link")
    os.symlink("file", root / "symlink")
    with open(root / "sparse", "wb") as sparse:
        sparse.truncate(50_000_000)
    told = subprocess.run(["du", "-s", "-B1", root], check=True, capture_output=True, text=True).stdout
    found = measure_tree(str(root), blocks_are_shared=False)
    assert (found.exclusive_bytes, found.shared_bytes) == (int(told.split()[0]), 0)
    assert found.inodes == 5


def test_blocks_shared_by_reflink_are_told_apart_from_own_ones(xfs_directory: str) -> None:
    own, other = Path(xfs_directory, "own"), Path(xfs_directory, "other")
    own.mkdir()
    (own / "alone").write_bytes(os.urandom(1 << 20))
    (own / "shared").write_bytes(os.urandom(2 << 20))
    with open(own / "shared", "rb") as source, open(other, "wb") as target:
        reflink(source.fileno(), target.fileno())
    found = measure_tree(str(own), blocks_are_shared=True)
    assert found.shared_bytes == 2 << 20
    assert 1 << 20 <= found.exclusive_bytes < (1 << 20) + 65_536


@given(lists(tuples(integers(0, 99), integers(1, 30))))
def test_blocks_in_several_runs_count_once(runs: list[tuple[int, int]]) -> None:
    ends = [(start, start + length) for start, length in runs]
    assert _covered(ends) == len({block for start, end in ends for block in range(start, end)})
