from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hostspec.store import open_store
from hostspec.testing.requirements import require_or_skip
from tests.cli.running import Commands


@pytest.fixture
def other(tmp_path: Path) -> Commands:
    (tmp_path / "other").mkdir()
    return Commands(tmp_path / "other")


def test_an_exported_image_is_imported_again(hostspec: Commands, image: str, tmp_path: Path) -> None:
    digest = hostspec.good("export", image, f"oci:{tmp_path}/layout:tag").strip()
    assert json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"] == digest

    made = hostspec.good(
        "import",
        f"oci:{tmp_path}/layout:tag",
    ).split()[0]

    assert hostspec.good("export", made, f"oci:{tmp_path}/again").strip() == digest


def test_an_archive_is_recognised_and_brings_its_names(
    hostspec: Commands, other: Commands, image: str, tmp_path: Path
) -> None:
    written = json.loads(hostspec.good("export", "--json", image, f"docker-archive:{tmp_path}/image.tar"))

    told = other.good("import", f"{tmp_path}/image.tar").split()

    assert told == [written[0]["digest"].removeprefix("sha256:"), "localhost/debian:latest"]
    told = other.good("import", "-n", "mine", f"docker-archive:{tmp_path}/image.tar:debian").split()
    assert set(told[1:]) == {"localhost/mine:latest", "localhost/debian:latest"}


def test_how_layers_are_compressed_can_be_chosen(hostspec: Commands, image: str, tmp_path: Path) -> None:
    for kind, ending in [("none", ".tar"), ("gzip", "+gzip"), ("zstd", "+zstd")]:
        digest = hostspec.good("export", "--compress", kind, image, f"oci:{tmp_path}/layout:{kind}").strip()
        manifest = (tmp_path / "layout/blobs" / digest.replace(":", "/")).read_text()
        assert all(layer["mediaType"].endswith(ending) for layer in json.loads(manifest)["layers"])
    done = hostspec("export", "--compress", "rar", image, f"oci:{tmp_path}/layout")
    assert (done.code, done.err) == (1, "hostspec: --compress: 'rar' is none of none, gzip, zstd\n")


def test_images_are_copied_to_another_store(hostspec: Commands, other: Commands, image: str) -> None:
    words = ("--to-graph", str(other.root), "--to-run", other.store_flags[3], "--to-driver", "vfs")

    told = hostspec.good("copy-image", *words, image)

    assert other.good("images") == hostspec.good("images")
    assert told.split()[0] == other.good("images", "-q").strip()
    assert hostspec("copy-image", image).err == (
        "hostspec: copy-image: needs the directory of the other store: --to-graph DIR\n"
    )


def test_a_copy_with_more_layers_than_others_can_mount_is_said_to_be_so(
    hostspec: Commands, tmp_path: Path
) -> None:
    with open_store(root=str(hostspec.root), run_root=hostspec.store_flags[3], driver="vfs") as store:
        top = None
        for _ in range(129):
            top = store.create_layer(top, read_only=True).id
        store.create_image(top, names=["localhost/deep:latest"])
    words = ("--to-graph", f"{tmp_path}/other", "--to-run", f"{tmp_path}/other-run", "--to-driver", "overlay")

    done = hostspec("copy-image", *words, "deep")

    assert done.code == 0, done.err
    assert "is the top of 129 layers" in done.err
    with open_store(root=f"{tmp_path}/other", run_root=f"{tmp_path}/other-run", driver="overlay") as store:
        store.wipe()
        store.shutdown()


def test_images_are_pulled_and_pushed(
    hostspec: Commands, other: Commands, image: str, tmp_path: Path
) -> None:
    if shutil.which("skopeo") is None:
        require_or_skip("skopeo", "is not installed; Debian's package has the same name")
    hostspec.good("export", image, f"oci:{tmp_path}/layout:tag")

    pulled = other("pull", "--name", "mine", f"oci:{tmp_path}/layout:tag")
    pushed = other("push", "localhost/mine:latest", f"docker-archive:{tmp_path}/image.tar:mine:1")

    assert (pulled.code, pushed.code) == (0, 0)
    assert pulled.out.split()[1] == "localhost/mine:latest"
    assert pushed.out == ""
    assert other.good("import", f"{tmp_path}/image.tar").split()[0] == pulled.out.split()[0]
    failed = other("pull", f"oci:{tmp_path}/layout:nowhere")
    assert failed.code == 1
    assert failed.out == ""
    assert failed.err.splitlines()[-1].startswith("hostspec: skopeo copy failed with exit code 1: ")
