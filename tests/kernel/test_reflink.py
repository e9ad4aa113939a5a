from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostspec.kernel.mounts import mount, unmount
from hostspec.kernel.reflink import CopyWay, copy_content, reflink, supports_reflinks

_BLOCK = 4096


@contextmanager
def _files(directory: str, other_directory: str | None = None) -> Iterator[tuple[int, int]]:
    source = os.open(f"{directory}/source", os.O_RDWR | os.O_CREAT)
    target = os.open(f"{other_directory or directory}/target", os.O_RDWR | os.O_CREAT)
    try:
        yield source, target
    finally:
        os.close(source)
        os.close(target)


def _write_sparse(descriptor: int, segments: list[tuple[int, int]], size: int) -> None:
    """Write random bytes in the blocks [start, end) of each segment, and leave the rest a hole."""
    for start, end in segments:
        os.pwrite(descriptor, os.urandom((end - start) * _BLOCK), start * _BLOCK)
    os.ftruncate(descriptor, size)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)


def _data(descriptor: int) -> list[tuple[int, int]]:
    """Return where the file has data, as the file system says."""
    found, position, size = [], 0, os.fstat(descriptor).st_size
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start, position))
    return found


def test_file_systems_say_whether_they_share_blocks(
    ext4_directory: str, xfs_directory: str, btrfs_directory: str
) -> None:
    answers = [supports_reflinks(path) for path in (ext4_directory, xfs_directory, btrfs_directory)]
    assert answers == [False, True, True]
    assert os.listdir(ext4_directory) == os.listdir(xfs_directory) == os.listdir(btrfs_directory) == []


def test_a_directory_that_takes_no_file_cannot_be_asked() -> None:
    with pytest.raises(OSError, match="proc"):
        supports_reflinks("/proc")


@pytest.mark.parametrize("kind", ["xfs_directory", "btrfs_directory"])
def test_a_copy_shares_blocks_where_the_file_system_can(kind: str, request: pytest.FixtureRequest) -> None:
    directory: str = request.getfixturevalue(kind)
    with _files(directory) as (source, target):
        _write_sparse(source, [(0, 256), (512, 513)], 600 * _BLOCK + 1)
        os.fsync(source)
        free_before = os.statvfs(directory).f_bfree
        assert copy_content(source, target, os.fstat(source).st_size) is CopyWay.REFLINK
        os.fsync(target)
        used = (free_before - os.statvfs(directory).f_bfree) * os.statvfs(directory).f_frsize
        assert used < 256 * _BLOCK / 2
        assert _content(target) == _content(source)
        # xfs shows what it has set aside for the source, up to its end, as data too.
        assert (
            [start for start, _ in _data(target)]
            == [start for start, _ in _data(source)]
            == [0, 512 * _BLOCK]
        )


def test_a_reflink_is_refused_where_it_cannot_be(ext4_directory: str, xfs_directory: str) -> None:
    with _files(ext4_directory) as (source, target):
        os.write(source, b"content")
        with pytest.raises(OSError, match="not supported"):
            reflink(source, target)
    with (
        _files(ext4_directory, xfs_directory) as (source, target),
        pytest.raises(OSError, match="Invalid cross"),
    ):
        reflink(source, target)


@settings(max_examples=25, deadline=None)
@given(
    segments=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=5),
    size=st.integers(1, 40 * _BLOCK),
)
def test_a_copy_without_sharing_has_the_same_content_and_the_same_data(
    segments: list[tuple[int, int]], size: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, _files(directory) as (source, target):
        _write_sparse(source, [(start, start + length) for start, length in segments], size)
        copy_content(source, target, size)
        assert _content(target) == _content(source)
        assert _data(target) == _data(source)


def test_the_kernel_copies_on_ext4(ext4_directory: str) -> None:
    with _files(ext4_directory) as (source, target):
        os.write(source, b"content")
        assert copy_content(source, target, 7) is CopyWay.COPY_FILE_RANGE


def test_a_copy_between_file_systems_keeps_content_and_data(ext4_directory: str, xfs_directory: str) -> None:
    with _files(xfs_directory, ext4_directory) as (source, target):
        _write_sparse(source, [(0, 300), (1000, 1001)], 2000 * _BLOCK)
        assert copy_content(source, target, 2000 * _BLOCK) is CopyWay.READ_WRITE
        assert _content(target) == _content(source)
        assert os.fstat(target).st_blocks * 512 < 400 * _BLOCK


def test_a_file_system_that_does_not_know_holes_is_read() -> None:
    content = Path("/proc/version").read_bytes()
    source = os.open("/proc/version", os.O_RDONLY)
    with tempfile.TemporaryFile() as target:
        assert copy_content(source, target.fileno(), len(content)) is CopyWay.READ_WRITE
        assert _content(target.fileno()) == content
    os.close(source)


def test_a_source_that_shrank_leaves_a_hole_at_the_end(ext4_directory: str, xfs_directory: str) -> None:
    for elsewhere in (ext4_directory, xfs_directory):
        with _files(ext4_directory, elsewhere) as (source, target):
            os.pwrite(source, b"short", 0)
            copy_content(source, target, 10_000)
            assert _content(target) == b"short".ljust(10_000, b"\0")


def test_an_empty_file_is_copied_by_doing_nothing(ext4_directory: str) -> None:
    with _files(ext4_directory) as (source, target):
        copy_content(source, target, 0)
        assert os.fstat(target).st_size == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_target_that_is_full_is_an_error(ext4_directory: str, tmp_path: Path) -> None:
    mount("none", str(tmp_path), "tmpfs", data="size=64k")
    try:
        with _files(ext4_directory, str(tmp_path)) as (source, target):
            os.write(source, bytes(range(256)) * 1024)
            with pytest.raises(OSError, match="No space"):
                copy_content(source, target, 256 * 1024)
    finally:
        unmount(str(tmp_path))
