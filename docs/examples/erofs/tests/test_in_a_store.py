"""The driver in a store: images are made without its lock, and nobody needs to write to them again."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.idmap import IdMap
from hostspec.store import Store, open_store
from hostspec.testing.isolation import isolate_mounts
from hostspec.testing.requirements import require_or_skip

MAPPED = IdMap.parse(["0:100000:65536"])

WRAPPER = """#!/bin/sh
timeout 100 {python} -c '
from hostspec.store import open_store
with open_store(root="{root}", run_root="{run_root}", driver="erofs") as store:
    store.create_layer(layer_id="made-meanwhile")
' && exec {program} "$@"
"""
"""A ``mkfs.erofs`` during which another process works on the store, or fails because it may not."""


def layer_tar(*names: str, owner: int = 0) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.uid = member.gid = owner
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    stream.seek(0)
    return stream


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    isolate_mounts()
    try:
        with open_store(
            root=str(tmp_path / "graph"), run_root=str(tmp_path / "run"), driver="erofs"
        ) as opened:
            yield opened
    except DriverUnavailable as unavailable:
        require_or_skip("erofs", unavailable.reason)


def test_another_process_works_on_the_store_while_an_image_is_made(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "bin/mkfs.erofs"
    wrapper.parent.mkdir()
    program = shutil.which("mkfs.erofs")
    wrapper.write_text(
        WRAPPER.format(python=sys.executable, root=store.root, run_root=store.run_root, program=program)
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")

    made = store.import_layer(layer_tar("file"))

    assert {layer.id for layer in store.layers()} == {made.id, "made-meanwhile"}
    assert os.path.exists(f"{store.driver.home}/layers/{made.id}/layer.erofs")


@pytest.mark.parametrize("strategy", ["shift", "template", "copy"])
def test_a_mapped_container_lives_and_dies_on_layers_that_are_images(store: Store, strategy: str) -> None:
    base = store.import_layer(layer_tar("below", owner=1_000))
    top = store.import_layer(layer_tar("above"), base.id)
    image = store.create_image(top.id)

    container = store.create_container(image.id, idmap=MAPPED, strategy=strategy)  # type: ignore[arg-type]
    with store.mounting(container.id) as root:
        assert os.stat(f"{root}/below").st_uid == 101_000
        Path(root, "written").touch()
        os.chown(f"{root}/written", 100_000, 100_000)

    assert [change.path for change in store.changes(container.id) if change.path != "/"] == ["/written"]
    assert not store.check().findings
    store.delete_container(container.id)
    store.delete_image(image.id)
    assert list(store.driver.list_layers()) == []
