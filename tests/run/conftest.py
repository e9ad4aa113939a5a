from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.images import import_image
from hostspec.store import open_store
from hostspec.testing.requirements import require_or_skip
from tests.peers import busybox
from tests.run.stages import IMAGE, Stage
from tests.scratch_filesystems import directory_for

DRIVERS = ("overlay", "btrfs", "vfs")

_subnets = itertools.count()


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root file system with a shell."""
    if os.geteuid() != 0:
        pytest.skip("only root may give containers namespaces and files owners")
    if busybox.program_path() is None:
        require_or_skip(busybox.PROGRAM, "there is no static one; Debian's package is busybox-static")
    if shutil.which("runc") is None:
        require_or_skip("runc", "there is no OCI runtime; Debian's package is runc")
    root = tmp_path_factory.mktemp("root")
    busybox.make_root(str(root))
    root.chmod(0o755)  # not everybody in a container is root
    return str(root)


@pytest.fixture
def stage(request: pytest.FixtureRequest, box: str) -> Iterator[Stage]:
    """A store of the overlay driver, or of the one that is the parameter, with an image."""
    driver = getattr(request, "param", "overlay")
    directory = directory_for(driver, request)
    with tempfile.TemporaryDirectory(prefix="hostspec-") as run:
        with open_store(root=os.path.join(directory, "graph"), run_root=run, driver=driver) as store:
            try:
                _ = store.driver.capabilities
            except DriverUnavailable as error:
                require_or_skip(driver, error.reason)
            import_image(store, box, names=[IMAGE])
            found = Stage(store, _own_subnet())
            yield found
            left = found.leftovers()
            store.wipe()
        assert left == []


def _own_subnet() -> str:
    """Return a subnet that no other test uses now, in whatever process."""
    number = os.getpid() * 64 + next(_subnets) % 64
    return f"10.{220 + (number >> 12) % 16}.{number >> 4 & 0xFF}.{(number & 0xF) << 4}/28"
