"""What the tests of the overlay driver share: drivers opened at fresh homes, on several file systems."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.testing.requirements import require_or_skip
from hostspec.values import CreateOptions, LayerRef
from hostspec_overlay import open_driver

OpenOverlay = Callable[..., GraphDriver]


@pytest.fixture(params=["ext4", "xfs"])
def directory(request: pytest.FixtureRequest) -> str:
    """An empty directory, on each file system in turn."""
    found = request.getfixturevalue(f"{request.param}_directory")
    assert isinstance(found, str)
    return found


@pytest.fixture
def open_overlay() -> Iterator[OpenOverlay]:
    """Opens a driver as another process would: ``open_overlay(directory, ("option", "value"))``."""
    if os.geteuid() != 0:
        require_or_skip("overlay", "only root can mount one")
    with ExitStack() as opened:

        def opener(
            directory: str, *options: tuple[str, str], read_only_homes: tuple[str, ...] = ()
        ) -> GraphDriver:
            home, run_root = f"{directory}/overlay", f"{directory}/run/overlay"
            os.makedirs(run_root, exist_ok=True)
            driver = GraphDriver(
                "overlay",
                open_driver(home, run_root, options, read_only_homes),
                home=home,
                run_root=run_root,
            )
            opened.callback(driver.cleanup)
            return driver

        yield opener


@pytest.fixture
def driver(ext4_directory: str, open_overlay: OpenOverlay) -> GraphDriver:
    """A driver on ext4."""
    return open_overlay(ext4_directory)


@pytest.fixture
def mount_program() -> str:
    """Path of the program that mounts overlays without the kernel's overlayfs."""
    found = shutil.which("fuse-overlayfs")
    if found is None:
        require_or_skip("fuse-overlayfs", "the program is missing; install the package fuse-overlayfs")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        require_or_skip("fuse-overlayfs", "there is no /dev/fuse, or it is not for this user")
    return found


AddLayer = Callable[..., LayerRef]


@pytest.fixture
def add_layer() -> AddLayer:
    """Makes a committed layer: ``add_layer(driver, "id", parent, {"name": "content"})``."""

    def add(
        driver: GraphDriver,
        layer_id: str,
        parent: LayerRef | None = None,
        files: dict[str, str] | None = None,
        *,
        idmap: IdMap | None = None,
    ) -> LayerRef:
        driver.create(layer_id, parent, CreateOptions(idmap=idmap or IdMap()))
        if files:
            with driver.mounted(layer_id, read_only=False) as root:
                for name, content in files.items():
                    os.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
                    with open(f"{root}/{name}", "w", encoding="utf-8") as file:
                        file.write(content)
        driver.commit(layer_id)
        return LayerRef(layer_id)

    return add
