"""Loop devices that are shared by all who use a file, and free themselves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.kernel.loop_devices import attached_loop_device, loop_device
from hostspec.kernel.mountfds import fsconfig_create, fsconfig_string, fsmount, fsopen
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import require_mkfs

PATIENCE_SECONDS = 60


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    """A file with an empty ext4, opened for writing."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        require_or_skip("loop", "loop devices need root and the module 'loop'")
    require_mkfs("ext4")
    path = tmp_path / "image"
    path.write_bytes(b"")
    os.truncate(path, 8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def mounted(device: str) -> int:
    context = fsopen("ext4")
    try:
        fsconfig_string(context, "source", device)
        fsconfig_create(context)
        return fsmount(context)
    finally:
        os.close(context)


def is_attached(image: int) -> bool:
    with attached_loop_device(image) as device:
        return device is not None


def becomes_free(image: int) -> bool:
    """Wait until a file is not attached; whoever looks through all devices keeps each for a moment."""
    end = time.monotonic() + PATIENCE_SECONDS
    while attached := is_attached(image):
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return not attached


def test_what_is_written_to_the_device_is_in_the_file(image: int) -> None:
    with loop_device(image) as device, open(device, "r+b", buffering=0) as opened:
        opened.write(bytes(511) + b"!")
        os.fsync(opened.fileno())

    assert os.pread(image, 1, 511) == b"!"


def test_a_device_frees_itself_when_nobody_uses_it(image: int) -> None:
    with loop_device(image):
        pass

    assert becomes_free(image)


def test_a_mount_keeps_its_device_until_it_ends(image: int) -> None:
    with loop_device(image) as device:
        mount = mounted(device)
    try:
        assert is_attached(image)
    finally:
        os.close(mount)

    assert becomes_free(image)


def test_a_file_that_is_attached_is_not_attached_again(image: int) -> None:
    with loop_device(image) as first:
        mount = mounted(first)
    try:
        again = os.open(f"/proc/self/fd/{image}", os.O_RDWR)
        try:
            with loop_device(again) as second:
                assert second == first
        finally:
            os.close(again)
    finally:
        os.close(mount)


def test_a_read_only_device_refuses_writes(image: int) -> None:
    with (
        loop_device(image, read_only=True) as device,
        open(device, "r+b", buffering=0) as opened,
        pytest.raises(PermissionError),
    ):
        opened.write(bytes(512))
