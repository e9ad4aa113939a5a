"""The Go library opens the vfs layers that we make, and we those that it made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing.requirements import require_or_skip
from hostspec.values import LayerRef, MountOptions
from hostspec_vfs import VfsDriver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers-storage works as root only")


class GoLibrary:
    """Debian's ``containers-storage`` on a store of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str) -> str:
        command = ["containers-storage", "--graph", str(self.root / "graph"), "--run", str(self.root / "run")]
        done = subprocess.run(
            [*command, "--storage-driver", "vfs", *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout


@pytest.fixture
def go(tmp_path: Path) -> GoLibrary:
    if shutil.which("containers-storage") is None:
        require_or_skip("containers-storage", "it is not installed")
    return GoLibrary(tmp_path)


@pytest.fixture
def driver(go: GoLibrary) -> GraphDriver:
    home = str(go.root / "graph" / "vfs")
    run_root = str(go.root / "run" / "vfs")
    return GraphDriver("vfs", VfsDriver(home, run_root), home=home, run_root=run_root)


def test_we_see_and_remove_layers_of_the_go_library(go: GoLibrary, driver: GraphDriver) -> None:
    go("create-layer", "-i", "base")
    go("create-layer", "-i", "child", "base")
    tree = Path(go("mount", "child").strip())
    (tree / "file").write_text("x")
    assert sorted(driver.list_layers()) == ["base", "child"]
    assert driver.mount("child") == str(tree)
    assert [str(change) for change in driver.changes(LayerRef("child"), LayerRef("base"))] == ["Add /file"]
    driver.remove("child")
    driver.reclaim()
    assert driver.list_layers() == ["base"]


def test_the_go_library_mounts_and_diffs_layers_that_we_made(go: GoLibrary, driver: GraphDriver) -> None:
    go("create-layer", "-i", "base")
    go("create-layer", "-i", "child", "base")
    Path(go("mount", "base").strip(), "old").write_text("x")
    # Its records stay; the layer's tree is now ours.
    driver.remove("child")
    driver.create("child", LayerRef("base"))
    Path(driver.mount("child"), "new").write_text("y")
    driver.commit("child")
    tree = go("mount", "child").strip()
    assert sorted(os.listdir(tree)) == ["new", "old"]
    assert go("changes", "child").splitlines() == ['Add "/new"']
    assert go("layers").split() == ["base", "child"]
    driver.reclaim()
    go("delete-layer", "child")
    assert driver.list_layers() == ["base"]


def test_the_go_library_leaves_what_we_are_making_alone(
    go: GoLibrary, driver: GraphDriver, tmp_path: Path
) -> None:
    go("create-layer", "-i", "base")
    driver.create("staged", LayerRef("base"))
    Path(driver.mount("staged"), "file").write_text("x")
    target = tmp_path / "target"
    target.mkdir()
    driver.mount("staged", MountOptions(target=str(target)))
    go("create-layer", "-i", "other", "base")
    go("layers")
    driver.commit("staged")
    assert (target / "file").read_text() == "x"
    driver.unmount("staged", str(target))
    assert sorted(driver.list_layers()) == ["base", "other", "staged"]
