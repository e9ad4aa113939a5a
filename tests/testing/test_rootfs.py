"""Root file systems for tests: writable, apart from each other, and gone afterwards, whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.kernel.mountinfo import mount_points
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
        require_or_skip("busybox", "there is no static one; Debian's package is busybox-static")
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
        (image,) = opened.images()
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


def test_what_a_test_mounts_or_still_uses_in_its_root_keeps_nothing_there(project: Path) -> None:
    code = (
        "import os, subprocess\n"
        "def test_mounts(rootfs):\n"
        "    (rootfs / 'proc').mkdir(exist_ok=True)\n"
        "    subprocess.run(['mount', '-t', 'proc', 'proc', rootfs / 'proc'], check=True)\n"
        "def test_stays(rootfs):\n"
        "    os.chdir(rootfs)\n"
        "def test_leaves_a_file_open(rootfs, request):\n"
        "    request.config.held = open(rootfs / 'new', 'w')\n"
    )
    done = run(project, code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_clean(project)


def test_the_next_run_clears_what_a_killed_one_left_in_use(project: Path) -> None:
    code = (
        "import os, signal, subprocess\n"
        "def test_it(rootfs):\n"
        "    (rootfs / 'proc').mkdir(exist_ok=True)\n"
        "    subprocess.run(['mount', '-t', 'proc', 'proc', rootfs / 'proc'], check=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run(project, code).returncode == -signal.SIGKILL
    done = run(project, "def test_it(rootfs):\n    pass\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    assert_clean(project)


def test_a_worker_of_xdist_clears_what_a_killed_one_left(project: Path) -> None:
    code = (
        "import os, pytest, signal\n"
        "@pytest.mark.parametrize('turn', range(3))\n"
        "def test_it(rootfs, turn):\n"
        "    if turn == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # One worker, so that whoever runs the rest is a new one.
    assert "1 failed, 2 passed" in run(project, code, "-n1").stdout
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


def test_what_was_imported_from_a_source_before_is_deleted(project: Path) -> None:
    code = "def test_it(rootfs):\n    pass\n"
    assert run(project, code).returncode == 0
    (project / "busybox" / "added").touch()
    assert run(project, code).returncode == 0
    assert_clean(project)


def test_processes_that_want_the_same_image_import_it_once(project: Path) -> None:
    code = "import pytest\n@pytest.mark.parametrize('turn', range(4))\ndef test_it(rootfs, turn):\n    pass\n"
    done = run(project, code, "-n2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_clean(project)


def test_nothing_is_left_of_an_interrupted_test(project: Path) -> None:
    code = (
        "def test_it(rootfs, layer_clone, rootfs_image):\n"
        "    layer_clone(rootfs_image)\n"
        "    raise KeyboardInterrupt\n"
    )
    assert run(project, code).returncode == pytest.ExitCode.INTERRUPTED
    assert_clean(project)


def test_layers_of_others_with_similar_names_are_left_alone(project: Path) -> None:
    code = "def test_it(rootfs):\n    pass\n"
    assert run(project, code).returncode == 0
    store = project / "store"
    with open_store(root=str(store / "graph"), run_root=str(store / "run")) as opened:
        opened.create_layer(None, names=["pytest-is-not-ours"])
        opened.create_layer(None, names=["pytest-1-²-odd"])

    done = run(project, code)

    assert done.returncode == 0, done.stdout + done.stderr
    with open_store(root=str(store / "graph"), run_root=str(store / "run")) as opened:
        assert len(opened.layers()) == 3


def test_places_in_the_configuration_begin_where_it_is(project: Path) -> None:
    text = CONFIGURATION.format(source="./busybox", store="./store", driver="vfs")
    (project / "pytest.ini").write_text(text)
    code = "def test_it(rootfs):\n    assert (rootfs / 'bin').exists()\n"
    (project / "below").mkdir()
    (project / "below" / "test_it.py").write_text(code)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
    done = subprocess.run(command, cwd=project / "below", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_clean(project)


def test_a_root_without_an_image_says_how_to_name_one(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\n")
    done = run(project, "def test_it(rootfs):\n    pass\n")
    assert done.returncode != 0
    assert "--rootfs-image" in done.stdout + done.stderr
