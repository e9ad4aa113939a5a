"""Pytest plugin: empty directories on the file systems that drivers behave differently on.

Each file system is made once per run, on a sparse loop file; each test gets a fresh directory in it.
A machine that cannot make one skips the test, or fails it where ``HOSTSPEC_REQUIRE`` names the file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hostspec.kernel.filesystems import filesystem_name
from hostspec.kernel.loop import loop_filesystem
from hostspec.kernel.mounts import unmount_all
from hostspec.testing.isolation import fresh_directory
from hostspec.testing.requirements import require_or_skip

# Sparse, so only what tests write is used; and large enough for some copies of a root file system.
_SIZE_BYTES = 4 << 30

_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}

_WITH_PROJECT_QUOTAS = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "nodiscard,quotatype=prjquota"),
}


def require_mkfs(kind: str) -> None:
    """End the running test where the program that makes this kind of file system is missing."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    if shutil.which(f"mkfs.{kind}", path=path) is None:
        require_or_skip(kind, f"mkfs.{kind} is not installed; Debian's package is {_PACKAGES[kind]}")


@contextmanager
def _workplace() -> Iterator[str]:
    """Give an empty directory below the temporary one which, unlike pytest's own, every user may enter."""
    with tempfile.TemporaryDirectory(prefix="hostspec-tests-", ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o755)
        yield directory


@contextmanager
def _scratch(kind: str) -> Iterator[str]:
    """Give the mount point of an empty file system, or end the test with the reason why there is none."""
    if os.geteuid() != 0:
        require_or_skip(kind, "only root can mount a scratch file system")
    require_mkfs(kind)
    with ExitStack() as stack:
        workplace = stack.enter_context(_workplace())
        try:
            mount_point = stack.enter_context(loop_filesystem(kind, workplace, size_bytes=_SIZE_BYTES))
        except OSError as refusal:
            require_or_skip(kind, f"no scratch file system here: {refusal}")
        yield mount_point


@pytest.fixture(scope="session")
def _xfs() -> Iterator[str]:
    with _scratch("xfs") as mount_point:
        yield mount_point


@pytest.fixture(scope="session")
def _btrfs() -> Iterator[str]:
    with _scratch("btrfs") as mount_point:
        yield mount_point


@pytest.fixture(scope="session")
def _ext4() -> Iterator[str]:
    """The machine's own ext4 where temporary files lie on one, which an ordinary user can use too."""
    own = filesystem_name(tempfile.gettempdir()) == "ext4"
    with _workplace() if own else _scratch("ext4") as directory:
        yield directory


@pytest.fixture
def xfs_directory(_xfs: str) -> Iterator[str]:
    """An empty directory on XFS, with reflinks."""
    with fresh_directory(_xfs) as directory:
        yield directory


@pytest.fixture
def btrfs_directory(_btrfs: str) -> Iterator[str]:
    """An empty directory on btrfs."""
    with fresh_directory(_btrfs) as directory:
        yield directory


@pytest.fixture
def ext4_directory(_ext4: str) -> Iterator[str]:
    """An empty directory on ext4, which has no reflinks."""
    with fresh_directory(_ext4) as directory:
        yield directory


def directory_for(driver: str, request: pytest.FixtureRequest) -> str:
    """Return an empty directory on which a driver works: on btrfs for its driver, on ext4 for any other."""
    found: str = request.getfixturevalue("btrfs_directory" if driver == "btrfs" else "ext4_directory")
    return found


@pytest.fixture(params=["xfs", "ext4"])
def project_quota_directory(request: pytest.FixtureRequest, ext4_directory: str) -> Iterator[str]:
    """An empty file system that enforces project quotas, of each kind in turn, where the kernel has them."""
    if os.geteuid() != 0:
        require_or_skip("project-quotas", "only root can mount a scratch file system")
    require_mkfs(request.param)
    image, place = f"{ext4_directory}/image", f"{ext4_directory}/mounted"
    os.mkdir(place)
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run([*_WITH_PROJECT_QUOTAS[request.param], image], check=True, capture_output=True)
    command = ["mount", "-t", request.param, "-o", "loop,prjquota", image, place]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = f"{request.param} cannot be mounted with prjquota, which this kernel may lack"
        require_or_skip("project-quotas", reason)
    yield place
    unmount_all(place)
