from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.kernel.mountinfo import mount_points
from hostspec.store import Store
from hostspec.testing.requirements import require_or_skip
from tests.peers import busybox
from tests.peers.clients import Place
from tests.scratch_filesystems import directory_for

DRIVERS = ("overlay", "vfs", "btrfs")


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root file system with a shell."""
    if os.geteuid() != 0:
        pytest.skip("files have owners, which only root can give them")
    if busybox.program_path() is None:
        require_or_skip(busybox.PROGRAM, "there is no static one; Debian's package is busybox-static")
    root = tmp_path_factory.mktemp("root")
    busybox.make_root(str(root))
    return str(root)


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place for a store of each driver in turn; nothing in it may still be mounted in the end."""
    if os.geteuid() != 0:
        pytest.skip("these programs need root, to mount and to give files their owners")
    directory = directory_for(request.param, request)
    with tempfile.TemporaryDirectory(prefix="hostspec-") as run:
        found = Place(directory, run, request.param)
        with found.open() as store:
            try:
                _ = store.driver.capabilities
            except DriverUnavailable as error:
                require_or_skip(request.param, error.reason)
            yield found
            store.wipe()
        assert [*mount_points(directory), *mount_points(run)] == []


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """That store, as hostspec opens it."""
    with place.open() as found:
        yield found
        # Not only closed: its driver would keep a file open in its home, which could then not be unmounted.
        found.wipe()
