"""Root file systems for tests: writable, apart from each other, and gone afterwards, whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.kernel.mounts import mount_points
from hostspec.store import open_store
from hostspec.testing.requirements import require_or_skip
from tests.peers.busybox import make_root, program_path

CONFIGURATION = """
[pytest]
rootfs_image = {source}
rootfs_store = {store}
rootfs_driver = {driver}
"""

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "rootfs" / "test_in_a_root.py"


@pytest.fixture
def driver() -> str:
    return "overlay"


@pytest.fixture
def project(driver: str, ext4_directory: str) -> Path:
    """A directory with a configuration of pytest, whose image is a busybox root."""
    if os.geteuid() != 0:
        require_or_skip("root", "root file systems are mounted")
    if program_path() is None:
        require_or_skip("busybox", "no static busybox; Debian's package is busybox-static")
    directory = Path(ext4_directory, "project")
    source, store = directory / "busybox", directory / "store"
    source.mkdir(parents=True)
    make_root(str(source))
    text = CONFIGURATION.format(source=source, store=store, driver=driver)
    (directory / "pytest.ini").write_text(text)
    return directory


def run(project: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run tests in the project, as their author would."""
    (project / "test_it.py").write_text(code)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, "test_it.py")
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def assert_clean(project: Path) -> None:
    store = project / "store"
    with open_store(root=str(store / "graph"), run_root=str(store / "run")) as opened:
        image = opened.images()[0]
        assert opened.containers() == ()
        assert [layer.id for layer in opened.layers()] == [image.layer]
        assert list(opened.driver.list_layers()) == [image.layer]
        opened.shutdown()
    assert mount_points(str(store)) == []


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_the_example_runs_a_real_program_in_a_root_of_its_own(project: Path) -> None:
    done = run(project, EXAMPLE.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert_clean(project)


def test_nothing_is_left_of_a_test_that_fails(project: Path) -> None:
    code = "def test_it(rootfs):\n    (rootfs / 'new').write_text('x')\n    assert False\n"
    assert "1 failed" in run(project, code).stdout
    assert_clean(project)


def test_the_next_run_clears_what_a_killed_one_left_and_imports_nothing(project: Path) -> None:
    code = (
        "import os, signal\n"
        "def test_it(rootfs, layer_clone, rootfs_image):\n"
        "    base = layer_clone(rootfs_image)\n"
        "    layer_clone(base)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = run(project, code)
    assert killed.returncode == -signal.SIGKILL
    code = "def test_it(rootfs, rootfs_store):\n    assert len(rootfs_store.layers()) == 2\n"
    done = run(project, code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_clean(project)


def test_an_image_is_imported_again_when_its_source_has_changed(project: Path) -> None:
    code = "def test_it(rootfs):\n    assert (rootfs / 'added').exists()\n"
    assert run(project, code).returncode == 1
    (project / "busybox" / "added").touch()
    done = run(project, code)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_root_without_an_image_says_how_to_name_one(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\n")
    done = run(project, "def test_it(rootfs):\n    pass\n")
    assert done.returncode != 0
    assert "--rootfs-image" in done.stdout + done.stderr
