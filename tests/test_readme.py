"""What the README shows is run here as it is written."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.cli.main import main
from hostspec.cli.surface import COMMANDS
from hostspec.driver import GraphDriver
from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.values import ApplyOptions, CreateOptions, LayerRef
from tests.store.tars import tar_of

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
API_EXAMPLE, DRIVER_EXAMPLE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


@as_root
def test_the_example_of_the_python_api_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", API_EXAMPLE], cwd=tmp_path, capture_output=True, check=False, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path}/store/")
    assert done.stdout.splitlines()[-1].endswith(" 100000")


def test_the_example_of_the_python_api_is_short() -> None:
    assert len([line for line in API_EXAMPLE.splitlines() if line]) <= 20


@as_root
def test_the_driver_that_fits_a_screen_works(tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    exec(DRIVER_EXAMPLE, namespace)  # noqa: S102 - that is what is tested
    make = namespace["open_driver"]
    assert callable(make)
    home = str(tmp_path / "home")
    driver = GraphDriver("plain", make(home, "", (), ()), home=home, run_root=str(tmp_path / "run"))

    driver.create("base")
    driver.apply_diff("base", io.BytesIO(tar_of({"etc": None, "etc/name": b"x"}, uid=5)), ApplyOptions())
    idmap = IdMap.parse(["0:100000:65536"])
    carried = driver.create_from_template("copy", LayerRef("base"), None, CreateOptions(idmap=idmap))

    assert carried == idmap
    assert os.stat(driver.mount("copy") + "/etc/name").st_uid == 100_005
    assert list(driver.changes(LayerRef("copy", idmap), LayerRef("base"))) == []
    driver.remove("base")
    with pytest.raises(InvalidRequest):
        driver.remove("")
    assert list(driver.list_layers()) == ["copy"]


def test_every_command_that_is_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set(re.findall(r"^\$ hostspec ([a-z-]+)|`hostspec ([a-z][a-z-]*)", README, flags=re.MULTILINE))
    names = {name for command in COMMANDS for name in command.names}

    assert {first or second for first, second in shown} - names == {"lyers"}
    assert main(["lyers"]) == 1
    assert capsys.readouterr().err in README


def test_the_help_that_is_shown_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"\$ hostspec create-container --help\n(.*?)…\n", README, flags=re.DOTALL)

    main(["create-container", "--help"])

    assert capsys.readouterr().out.startswith(shown)


def test_every_file_that_is_linked_exists() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / target).exists(), target


def test_the_tree_that_is_shown_is_there() -> None:
    root = Path(__file__).parent.parent
    (tree,) = re.findall(r"## Where things are\n\n```text\n(.*?)```", README, flags=re.DOTALL)
    named = re.findall(r"^(?:  )?([a-z_]+(?:/|\.py))|\s([a-z]+\.py)\s", tree, flags=re.MULTILINE)
    names = {first or second for first, second in named} - {"surface.py"}

    assert names >= {"hookspecs.py", "kernel/", "plugins/"}
    for name in names:
        assert (root / name).exists() or (root / "hostspec" / name).exists(), name
