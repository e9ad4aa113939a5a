"""Pulling and pushing; directories stand in for registries, which skopeo treats alike."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest, Unknown
from hostspec.images.exporting import export_images
from hostspec.images.importing import import_image
from hostspec.images.registries import SkopeoFailed, pull, push
from hostspec.store import Image, Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.images.layouts import Layout
from tests.store.tars import tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10)

# Pretends not to know the store's driver.
IGNORANT = """#!/bin/sh
case "$*" in *containers-storage:*) echo 'level=fatal msg="driver not supported"' >&2; exit 1;; esac
exec {skopeo} "$@"
"""


@pytest.fixture(autouse=True)
def skopeo() -> str:
    found = shutil.which("skopeo")
    if found is None:
        require_or_skip("skopeo", "is not installed; Debian's package has the same name")
    return str(found)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "layout")
    made.image(BASE, TOP, tag="1.0")
    return made


@pytest.fixture
def image(store: Store, layout: Layout) -> Image:
    return import_image(store, f"oci:{layout.path}:1.0", names=["localhost/mine:latest"])


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Store]:
    """A store whose path and options cannot be written into a reference."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    directory = tmp_path / "a+b:c@d [e]"
    options = ["overlay.mountopt=nodev,metacopy=on"]
    with open_store(
        root=f"{directory}/graph", run_root=f"{directory}/run", driver="overlay", options=options
    ) as opened:
        yield opened


def digest_in(directory: Path) -> str:
    (entry,) = json.loads((directory / "index.json").read_text())["manifests"]
    return str(entry["digest"])


def image_in(directory: Path) -> str:
    """Return the ID of the image in a layout; skopeo writes manifests anew, so only that one is telling."""
    manifest = directory / "blobs" / digest_in(directory).replace(":", "/")
    return str(json.loads(manifest.read_text())["config"]["digest"]).removeprefix("sha256:")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "localhost/layout:1.0"),
        ("mine", "localhost/mine:latest"),
        ("quay.io/x/mine:2", "quay.io/x/mine:2"),
        ("docker.io/mine", "docker.io/library/mine:latest"),
    ],
)
def test_a_pulled_image_has_its_name_in_full(
    store: Store, layout: Layout, name: str | None, expected: str
) -> None:
    pulled = pull(store, f"oci:{layout.path}:1.0", name=name)

    assert pulled.names == (expected,)
    with store.mounting(pulled.id, read_only=True) as root:
        assert Path(root, "etc/name").read_bytes() == b"top\n"


def test_any_transport_will_do(store: Store, image: Image, tmp_path: Path) -> None:
    export_images(store, [image.id], f"docker-archive:{tmp_path}/saved.tar:mine:2.0")
    push(store, image.id, f"dir:{tmp_path}/directory")
    store.delete_image(image.id)

    assert pull(store, f"docker-archive:{tmp_path}/saved.tar").names == ("localhost/saved:latest",)
    assert pull(store, f"dir:{tmp_path}/directory", name="again").id == image.id


def test_a_pushed_image_has_its_own_digest(store: Store, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(BASE)
    image = import_image(store, f"{tmp_path}/root.tar", names=["localhost/mine:latest"])

    # Where it may, skopeo compresses what it sends.
    flags = ["--dest-oci-accept-uncompressed-layers"]
    push(store, "localhost/mine:latest", f"oci:{tmp_path}/out:tag", flags=flags)

    assert digest_in(tmp_path / "out") == image.digest


def test_pulling_what_is_there_stores_nothing_twice(store: Store, image: Image, layout: Layout) -> None:
    before = store.layers()

    pulled = pull(store, f"oci:{layout.path}:1.0")

    assert pulled.id == image.id
    assert store.layers() == before


def test_neither_the_path_of_a_store_nor_its_options_matter(
    strange: Store, layout: Layout, tmp_path: Path
) -> None:
    pulled = pull(strange, f"oci:{layout.path}:1.0")
    push(strange, pulled.id, f"oci:{tmp_path}/out:tag")

    assert image_in(tmp_path / "out") == pulled.id


def test_the_environment_does_not_lead_to_another_store(
    store: Store, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_DRIVER", "overlay")
    monkeypatch.setenv("STORAGE_OPTS", "overlay.mountopt=nodev")

    assert pull(store, f"oci:{layout.path}:1.0").id in {each.id for each in store.images()}


def test_a_store_whose_driver_skopeo_does_not_know_is_served_as_well(
    store: Store, layout: Layout, tmp_path: Path, skopeo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/skopeo"
    program.parent.mkdir()
    program.write_text(IGNORANT.format(skopeo=skopeo))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    pulled = pull(store, f"oci:{layout.path}:1.0")
    push(store, pulled.id, f"oci:{tmp_path}/out:tag")

    assert pulled.names == ("localhost/layout:1.0",)
    assert image_in(tmp_path / "out") == pulled.id == image_in(layout.path)


def test_without_skopeo_the_error_says_what_to_install(
    store: Store, image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InvalidRequest, match=r"skopeo: is not installed.*apt install skopeo"):
        pull(store, "debian")
    with pytest.raises(InvalidRequest, match="install skopeo"):
        push(store, image.id, "oci:/nowhere")


def test_what_skopeo_says_is_shown_and_kept(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SkopeoFailed, match=r"skopeo copy failed with exit code 1: .*no such file") as failure:
        pull(store, f"oci:{tmp_path}/nowhere:tag", show=True)

    assert failure.value.exit_code == 1
    assert "no such file" in failure.value.said
    assert failure.value.said in capfd.readouterr().err
    assert store.images() == ()


def test_an_image_goes_to_the_registry_of_the_name_that_was_meant(
    store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of a program that would go out to the registry: it notes where it was sent.
    (tmp_path / "skopeo").write_text(f'#!/bin/sh\nfor last; do :; done; echo "$last" >> {tmp_path}/sent\n')
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    store.set_names(image.id, ["one.invalid/x:1", "docker.io/library/busy:latest", "localhost/mine:latest"])

    push(store, "busy")
    push(store, "one.invalid/x:1")
    with pytest.raises(InvalidRequest, match="no registry in its name"):
        push(store, "mine")
    with pytest.raises(InvalidRequest, match=r"one\.invalid/x:1 and docker\.io"):
        push(store, image.id)
    store.remove_names(image.id, ["one.invalid/x:1"])
    push(store, image.id)

    busy = "docker://docker.io/library/busy:latest"
    assert (tmp_path / "sent").read_text().split() == [busy, "docker://one.invalid/x:1", busy]


def test_a_name_that_no_registry_accepts_is_refused(store: Store, image: Image) -> None:
    for name in ["", "UPPER", "a b", "x:", "-flag", "host.example/"]:
        with pytest.raises(InvalidRequest, match="no image name"):
            pull(store, name)
    with pytest.raises(InvalidRequest, match="no registry in its name"):
        push(store, image.id)
    with pytest.raises(Unknown):
        push(store, "nothing", "oci:/nowhere")
