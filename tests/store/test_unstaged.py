"""The store on a driver that cannot stage layers: they are flagged as incomplete while they are filled."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec.errors import Duplicate, InvalidArchive
from hostspec.idmap import IdMap
from hostspec.store import Store
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of
from tests.store.tars import MAP, tar_of


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """What pip would install for such a driver."""
    information = tmp_path / "site" / "unstaged-1.0.dist-info"
    information.mkdir(parents=True)
    entry = "[hostspec.drivers]\nunstaged = tests.store.unstaged_driver:open_driver\n"
    (information / "entry_points.txt").write_text(entry)
    return information.parent


@pytest.fixture
def unstaged(distribution: Path, monkeypatch: pytest.MonkeyPatch, open_here: OpenStore) -> Store:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    monkeypatch.syspath_prepend(distribution)
    return open_here(driver="unstaged")


def test_everything_works_there_too(
    unstaged: Store, tree_of: Callable[[str], dict[str, tuple[int, int, bytes]]]
) -> None:
    layer = unstaged.import_layer(io.BytesIO(tar_of({"file": b"x"}, uid=10, gid=20)))
    image = unstaged.create_image(layer.id)
    container = unstaged.create_container(image.id, idmap=IdMap.parse([MAP]))
    with unstaged.mounting(container.id) as path:
        assert tree_of(path) == {"file": (100010, 100020, b"x")}
    assert len(unstaged.image(image.id).mapped_layers) == 1
    assert faults_of(unstaged) == []
    unstaged.delete_container(container.id)
    assert len(unstaged.delete_image(image.id)) == 2
    assert (unstaged.layers(), list(unstaged.driver.list_layers())) == ((), [])


def test_a_layer_is_flagged_while_it_is_filled(unstaged: Store) -> None:
    path = Path(unstaged.root, "unstaged-layers/layers.json")
    seen: list[object] = []

    class Looking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.extend(record.get("flags") for record in json.loads(path.read_text()))
            return super().read(size)

    layer = unstaged.import_layer(Looking(tar_of({"file": b"x"})))
    assert {json.dumps(each) for each in seen} == {'{"incomplete": true}'}
    assert not unstaged.layer(layer.id).incomplete


def test_a_failure_leaves_nothing(unstaged: Store) -> None:
    with pytest.raises(InvalidArchive):
        unstaged.import_layer(io.BytesIO(b"no tar" * 200))
    unstaged.create_layer(layer_id="mine")
    with pytest.raises(Duplicate):
        unstaged.create_layer(layer_id="mine")
    assert [layer.id for layer in unstaged.layers()] == ["mine"]
    assert faults_of(unstaged) == []


@pytest.mark.parametrize("hook", ["create", "apply_diff"])
def test_who_dies_while_filling_leaves_a_layer_that_the_next_one_removes(
    unstaged: Store, distribution: Path, hook: str
) -> None:
    unstaged.create_layer()
    words = [unstaged.root, unstaged.run_root, "unstaged", hook, "finished", "import"]
    died = subprocess.run(
        [sys.executable, "-m", "tests.store.dying", *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(distribution)},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    recorded = json.loads(Path(unstaged.root, "unstaged-layers/layers.json").read_text())
    assert [record.get("flags") for record in recorded] == [None, {"incomplete": True}]
    assert len(unstaged.layers()) == 1
    assert faults_of(unstaged) == []
