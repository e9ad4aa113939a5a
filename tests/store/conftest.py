from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.store import Image, Store, open_store
from hostspec.store.format.layout import Layout
from hostspec.store.graph_root import GraphRoot
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.tars import tar_of


class OpenStore(Protocol):
    """Opens the test's store, once more."""

    def __call__(
        self, *options: str, driver: str = "vfs", read_only: bool = False, shift: str = "native-only"
    ) -> Store: ...


@pytest.fixture
def open_here(tmp_path: Path) -> OpenStore:
    """The test's own store; vfs works on every machine, and shows everything that the store itself does.

    It does not shift with vfs, so that mapped copies are made of whatever is small and quick to make.
    """

    def run(*options: str, driver: str = "vfs", read_only: bool = False, shift: str = "native-only") -> Store:
        return open_store(
            root=str(tmp_path / "graph"),
            run_root=str(tmp_path / "run"),
            driver=driver,
            options=[f"hostspec.shift={shift}", *options],
            read_only=read_only,
        )

    return run


@pytest.fixture
def store(open_here: OpenStore) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    with open_here() as opened:
        yield opened


@pytest.fixture(params=["vfs", "overlay", "btrfs"])
def store_of_each_driver(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store on the file system that its driver wants."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    directory = directory_for(request.param, request)
    found = open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=request.param)
    try:
        _ = found.driver.capabilities
    except DriverUnavailable as error:
        require_or_skip(request.param, error.reason)
    with found:
        yield found


@pytest.fixture
def overlay_store(open_here: OpenStore) -> Iterator[Store]:
    """Its driver shifts, and refuses to remove what others stand on, with or without a record."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount overlays")
    with open_here(driver="overlay") as opened:
        yield opened


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "graph"), str(tmp_path / "run"), "vfs")


@pytest.fixture
def graph_root(layout: Layout) -> GraphRoot:
    return GraphRoot(layout)


@pytest.fixture
def image(store: Store) -> Image:
    """An image of two layers, each with files."""
    base = store.import_layer(io.BytesIO(tar_of({"etc": None, "etc/name": b"base\n", "a": b"short name"})))
    top = store.import_layer(io.BytesIO(tar_of({"etc/name": b"top\n"}, uid=10, gid=20)), base.id)
    return store.create_image(top.id, names=["image"], big_data={"manifest": b"{}"})


@pytest.fixture
def tree_of() -> Callable[[str], dict[str, tuple[int, int, bytes]]]:
    """Reads a mounted tree: owner, group and content of each file."""

    def run(path: str) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for directory, _, names in os.walk(path):
            for name in names:
                file = Path(directory, name)
                status = file.lstat()
                found[os.path.relpath(file, path)] = (status.st_uid, status.st_gid, file.read_bytes())
        return found

    return run
