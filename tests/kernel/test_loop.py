from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hostspec.kernel.loop import MINIMUM_BYTES, loop_filesystem
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import mount
from tests.scratch_filesystems import require_mkfs

_PATIENCE_SECONDS = 60
_ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def _loop_images() -> set[str]:
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # somebody else's, freed meanwhile
            found.add(path.read_text())
    return found


@_ROOT_ONLY
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_scratch_file_system_is_there_and_then_gone(tmp_path: Path, kind: str) -> None:
    require_mkfs(kind)
    with loop_filesystem(kind, str(tmp_path), size_bytes=MINIMUM_BYTES[kind]) as place:
        assert is_mountpoint(place)
        Path(place, "file").write_text("content")
        assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(place)]
    assert list(tmp_path.iterdir()) == []
    end = time.monotonic() + _PATIENCE_SECONDS
    # Whoever looks through all devices keeps this one for a moment.
    while any(str(tmp_path) in image for image in _loop_images()):
        assert time.monotonic() < end
        time.sleep(0.01)


@_ROOT_ONLY
def test_it_goes_even_when_it_is_used_and_mounted_on(tmp_path: Path) -> None:
    require_mkfs("ext4")
    with loop_filesystem("ext4", str(tmp_path), size_bytes=4 << 20) as place:
        os.mkdir(f"{place}/inner")
        mount("none", f"{place}/inner", "tmpfs")
        user = os.open(place, os.O_RDONLY)
    os.close(user)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("hostspec.kernel.loop._SYSTEM_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"mkfs\.xfs is missing; install the package xfsprogs"):  # noqa: SIM117
        with loop_filesystem("xfs", str(tmp_path), size_bytes=MINIMUM_BYTES["xfs"]):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "size"), [("vfat", 1 << 30), ("xfs", 1 << 20)])
def test_what_no_mkfs_would_make_is_refused(tmp_path: Path, kind: str, size: int) -> None:
    with pytest.raises(ValueError, match=kind), loop_filesystem(kind, str(tmp_path), size_bytes=size):
        pass
    assert list(tmp_path.iterdir()) == []
