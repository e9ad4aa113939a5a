"""Images made by other tools, and other tools on images made by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostspec.images import import_image
from hostspec.store import Store
from tests.images.layouts import Layout
from tests.images.programs import run
from tests.store.tars import tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n", ".wh.gone": b""})


def test_a_layout_that_skopeo_copied_is_read(store: Store, tmp_path: Path) -> None:
    Layout(tmp_path / "ours").image(BASE, TOP, tag="one")
    theirs = tmp_path / "theirs"

    run("skopeo", "copy", "--quiet", f"oci:{tmp_path}/ours:one", f"oci:{theirs}:two")

    made = import_image(store, f"oci:{theirs}:two", names=["copied"])
    with store.mounting(made.id, read_only=True) as root:
        assert Path(root, "etc/name").read_bytes() == b"top\n"


def test_a_layout_that_umoci_made_is_read(store: Store, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("umoci", "init", "--layout", str(layout))
    run("umoci", "new", "--image", f"{layout}:new")
    run("umoci", "unpack", "--image", f"{layout}:new", str(bundle))
    (bundle / "rootfs/opt").mkdir()
    (bundle / "rootfs/opt/file").write_bytes(b"by umoci")
    run("umoci", "repack", "--image", f"{layout}:changed", str(bundle))

    made = import_image(store, f"oci:{layout}:changed")

    with store.mounting(made.id, read_only=True) as root:
        assert Path(root, "opt/file").read_bytes() == b"by umoci"


@pytest.mark.parametrize("source", ["layout", "tar"])
def test_the_go_tools_know_an_image_that_we_imported(store: Store, tmp_path: Path, source: str) -> None:
    if source == "layout":
        Layout(tmp_path / "image").image(BASE, TOP)
        place = f"oci:{tmp_path}/image"
    else:
        (tmp_path / "image").write_bytes(BASE)
        place = str(tmp_path / "image")
    made = import_image(store, place, names=["localhost/mine:latest"])
    flags = ["--graph", store.root, "--run", store.run_root, "--storage-driver", "vfs"]

    assert made.id in run("containers-storage", *flags, "images", "-q").split()
    described = run("containers-storage", *flags, "image", "localhost/mine:latest")
    assert f"Top Layer: {made.layer}" in described
    assert f"Digest: {made.digest}" in described

    reference = f"containers-storage:[vfs@{store.root}+{store.run_root}]localhost/mine:latest"
    inspected = json.loads(run("skopeo", "inspect", reference))
    assert inspected["Digest"] == made.digest
    assert len(inspected["Layers"]) == len(json.loads(store.big_data(made, "manifest"))["layers"])
