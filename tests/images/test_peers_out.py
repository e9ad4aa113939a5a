"""What hostspec writes, read by other tools, and the other way round."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from hostspec.images import copy_image, export_images, import_image
from hostspec.store import Image, Store, open_store
from tests.images.archives import opened_archive
from tests.images.layouts import Layout
from tests.images.programs import run
from tests.peers.clients import Place, require_program
from tests.store.tars import tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n", "etc/gone": b""})
TOP = tar_of({"etc/name": b"top\n", "etc/.wh.gone": b""})


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    layout = Layout(tmp_path / "layout")
    layout.image(BASE, TOP)
    return import_image(store, f"oci:{layout.path}", names=["localhost/mine:latest"])


def storage(store: Store) -> str:
    return f"containers-storage:[{store.driver_name}@{store.root}+{store.run_root}]"


@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
def test_skopeo_and_hostspec_mean_the_same_image(
    store: Store, image: Image, tmp_path: Path, kind: str
) -> None:
    ours, theirs = f"{kind}:{tmp_path}/ours:mine:1", f"{kind}:{tmp_path}/theirs:mine:1"
    export_images(store, [image.id], ours)

    run("skopeo", "copy", ours, theirs)

    config = store.big_data(image, f"sha256:{image.id}").decode()
    assert run("skopeo", "inspect", "--config", "--raw", ours) == config
    assert run("skopeo", "inspect", "--config", "--raw", theirs) == config
    store.delete_image(image.id)
    assert import_image(store, theirs).id == image.id


def test_the_manifest_of_an_archive_is_the_one_that_podman_makes(
    store: Store, image: Image, tmp_path: Path
) -> None:
    export_images(store, [image.id], f"docker-archive:{tmp_path}/image.tar:mine:1")

    run("skopeo", "copy", f"docker-archive:{tmp_path}/image.tar", f"{storage(store)}localhost/again:1")

    with opened_archive(tmp_path / "image.tar") as archive:
        assert archive.manifest().raw == store.big_data(store.image("localhost/again:1"), "manifest")


@pytest.mark.parametrize(
    "place", ["oci-archive:{}/image.tar", "oci-archive:{}/image.tar:mine:1", "{}/image.tar"]
)
def test_the_tar_of_a_layout_is_read_as_well(store: Store, image: Image, tmp_path: Path, place: str) -> None:
    export_images(store, [image.id], f"oci:{tmp_path}/out:tag")
    run("skopeo", "copy", f"oci:{tmp_path}/out:tag", f"oci-archive:{tmp_path}/image.tar:mine:1")
    store.delete_image(image.id)

    assert import_image(store, place.format(tmp_path)).id == image.id


def test_umoci_unpacks_an_exported_layout(store: Store, image: Image, tmp_path: Path) -> None:
    export_images(store, [image.id], f"oci:{tmp_path}/out:tag")

    run("umoci", "unpack", "--image", f"{tmp_path}/out:tag", f"{tmp_path}/bundle")

    assert sorted(os.listdir(tmp_path / "bundle/rootfs/etc")) == ["name"]
    assert (tmp_path / "bundle/rootfs/etc/name").read_bytes() == b"top\n"


def test_an_image_that_is_here_already_comes_in_again_through_the_go_tools(
    store: Store, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "root.tar").write_bytes(BASE)
    other = import_image(store, f"{tmp_path}/root.tar", names=["localhost/root:latest"])
    before = store.layers()
    for each in (image, other):
        run("skopeo", "copy", f"{storage(store)}{each.names[0]}", f"oci:{tmp_path}/{each.id}:tag")
        run("skopeo", "copy", f"oci:{tmp_path}/{each.id}:tag", f"{storage(store)}localhost/again:latest")
        assert store.image("localhost/again:latest").id == each.id
    assert store.layers() == before


def test_podman_loads_what_hostspec_saved_and_hostspec_what_podman_saved(
    store: Store, image: Image, tmp_path: Path, ext4_directory: str
) -> None:
    require_program("podman")
    export_images(store, [image.id], f"docker-archive:{tmp_path}/ours.tar")

    with tempfile.TemporaryDirectory(prefix="hostspec-") as run_root:
        place = Place(ext4_directory, run_root, "vfs")
        told = place.podman("load", "-i", f"{tmp_path}/ours.tar")
        place.podman("save", "-o", f"{tmp_path}/theirs.tar", "localhost/mine:latest")
        with place.open() as theirs:
            theirs.wipe()

    assert "localhost/mine:latest" in told
    store.delete_image(image.id)
    again = import_image(store, f"{tmp_path}/theirs.tar")
    assert (again.id, again.names) == (image.id, ("localhost/mine:latest",))


def test_a_copied_image_is_known_to_the_go_tools(
    store: Store, image: Image, tmp_path: Path, ext4_directory: str
) -> None:
    with open_store(root=f"{ext4_directory}/g", run_root=f"{ext4_directory}/r", driver="overlay") as target:
        copy_image(store, image.id, target)
        run("skopeo", "copy", f"{storage(target)}localhost/mine:latest", f"oci:{tmp_path}/out:tag")
        target.wipe()
    assert import_image(store, f"oci:{tmp_path}/out:tag").id == image.id
