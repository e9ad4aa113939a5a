from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from hostspec.archive.compression import Compression
from hostspec.errors import DigestMismatch, InvalidArchive, InvalidRequest
from hostspec.images.documents import MANIFEST_TYPE, Descriptor
from hostspec.images.exporting import export_images
from hostspec.images.importing import import_image
from hostspec.images.oci_layout_writer import OciLayoutWriter
from hostspec.store import Image, Store
from tests.images.archives import opened_archive
from tests.images.layouts import Layout
from tests.store.tars import digest_of, tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def image(store: Store, layout: Layout) -> Image:
    layout.image(BASE, TOP)
    return import_image(store, f"oci:{layout.path}", names=["localhost/mine:latest"])


def index_of(directory: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((directory / "index.json").read_text())["manifests"]
    return listed


def document(directory: Path, digest: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads((directory / "blobs" / digest.replace(":", "/")).read_bytes())


def manifest_of(directory: Path) -> Any:  # noqa: ANN401 - any JSON
    (entry,) = index_of(directory)
    return document(directory, entry["digest"])


def assert_whole(directory: Path) -> None:
    """Every blob has the digest that its name says."""
    for blob in (directory / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def spoil(store: Store, layer: str) -> None:
    """Change a file of a layer behind the store's back."""
    with store.mounting(layer) as root:
        Path(root, "etc/name").write_bytes(b"changed")


def test_an_image_comes_out_of_the_store_as_it_came_in(store: Store, image: Image, tmp_path: Path) -> None:
    (written,) = export_images(store, ["localhost/mine:latest"], f"oci:{tmp_path}/out:tag")

    assert written.digest == image.digest
    assert written.repacked == ()
    assert index_of(tmp_path / "out")[0]["digest"] == image.digest
    assert index_of(tmp_path / "out")[0]["annotations"] == {"org.opencontainers.image.ref.name": "tag"}
    assert {each.name for each in (tmp_path / "out/blobs/sha256").iterdir()} == {
        each.name for each in (tmp_path / "layout/blobs/sha256").iterdir()
    }
    assert_whole(tmp_path / "out")
    assert oct((tmp_path / "out/index.json").stat().st_mode & 0o777) == "0o644"


@pytest.mark.parametrize(
    ("kind", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor(level=9).compress)]
)
def test_compressed_layers_are_compressed_again_and_the_manifest_says_what_is_there(
    store: Store, layout: Layout, tmp_path: Path, kind: str, compress: Callable[[bytes], bytes]
) -> None:
    layer_type = f"application/vnd.oci.image.layer.v1.tar+{kind}"
    layout.image(BASE, TOP, compress=compress, layer_type=layer_type)
    image = import_image(store, f"oci:{layout.path}")

    export_images(store, [image.id], f"oci:{tmp_path}/out")

    manifest = manifest_of(tmp_path / "out")
    assert manifest["config"]["digest"] == f"sha256:{image.id}"
    for layer in manifest["layers"]:
        assert layer["mediaType"] == layer_type
        assert (tmp_path / "out/blobs" / layer["digest"].replace(":", "/")).stat().st_size == layer["size"]
    assert_whole(tmp_path / "out")
    store.delete_image(image.id)
    assert import_image(store, f"oci:{tmp_path}/out").id == image.id


def test_what_hostspec_compressed_keeps_its_digest_from_then_on(
    store: Store, image: Image, tmp_path: Path
) -> None:
    (first,) = export_images(store, [image.id], f"oci:{tmp_path}/first", compression=Compression.GZIP)
    store.delete_image(image.id)
    again = import_image(store, f"oci:{tmp_path}/first")

    (second,) = export_images(store, [again.id], f"oci:{tmp_path}/second")

    assert first.digest == again.digest == second.digest != image.digest


def test_compressed_layers_that_lie_in_the_layout_are_not_written_again(store: Store, layout: Layout) -> None:
    layout.image(BASE, TOP, compress=gzip.compress, layer_type="application/vnd.oci.image.layer.v1.tar+gzip")
    image = import_image(store, f"oci:{layout.path}")

    (written,) = export_images(store, [image.id], f"oci:{layout.path}:again")

    assert written.digest == image.digest
    assert [each["digest"] for each in index_of(layout.path)] == [image.digest, image.digest]


def test_a_damaged_blob_in_the_layout_is_replaced(store: Store, image: Image, layout: Layout) -> None:
    layout.replace(digest_of(TOP), b"damaged")

    export_images(store, [image.id], f"oci:{layout.path}:again")

    assert_whole(layout.path)


def test_what_a_manifest_says_beside_digests_is_kept(store: Store, layout: Layout, tmp_path: Path) -> None:
    digest = layout.image(
        BASE, compress=gzip.compress, layer_type="application/vnd.oci.image.layer.v1.tar+gzip"
    )
    manifest = json.loads(layout.blob(digest)) | {"annotations": {"org.example": "kept"}}
    manifest["layers"][0]["annotations"] = {"about": "these very bytes"}
    layout.list(layout.entry(layout.add(json.dumps(manifest).encode())))
    image = import_image(store, f"oci:{layout.path}")

    export_images(store, [image.id], f"oci:{tmp_path}/out")

    written = manifest_of(tmp_path / "out")
    assert written["annotations"] == {"org.example": "kept"}
    assert "annotations" not in written["layers"][0]


def test_dockers_manifest_becomes_an_oci_manifest_of_the_same_image(
    store: Store, layout: Layout, tmp_path: Path
) -> None:
    layout.image(
        BASE,
        manifest_type="application/vnd.docker.distribution.manifest.v2+json",
        layer_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
    image = import_image(store, f"oci:{layout.path}")

    export_images(store, [image.id], f"oci:{tmp_path}/out")

    manifest = manifest_of(tmp_path / "out")
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert manifest["config"]["digest"] == f"sha256:{image.id}"
    # The type said gzip, the digest that it was not true.
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert manifest["layers"][0]["digest"] == digest_of(BASE)


def test_a_tag_moves_and_other_images_stay(
    store: Store, image: Image, layout: Layout, tmp_path: Path
) -> None:
    out = f"oci:{tmp_path}/out"
    layout.list()
    layout.image(TOP)
    other = import_image(store, f"oci:{layout.path}")
    for reference, tag in [
        (image.id, ":a"),
        (image.id, ":b"),
        (other.id, ":a"),
        (other.id, ""),
        (other.id, ""),
    ]:
        export_images(store, [reference], out + tag)

    listed = {
        each.get("annotations", {}).get("org.opencontainers.image.ref.name"): each["digest"]
        for each in index_of(tmp_path / "out")
    }
    assert listed == {"b": image.digest, "a": other.digest, None: other.digest}
    assert len(index_of(tmp_path / "out")) == 3
    assert import_image(store, f"{out}:b").id == image.id


def test_an_image_is_listed_under_its_own_names(store: Store, image: Image, tmp_path: Path) -> None:
    export_images(store, [image.id], f"oci:{tmp_path}/out")

    assert index_of(tmp_path / "out")[0]["annotations"] == {
        "org.opencontainers.image.ref.name": "localhost/mine:latest"
    }


def test_several_may_write_to_one_layout(tmp_path: Path) -> None:
    directories = [tmp_path / f"out{number}" for number in range(10)]
    failures: list[BaseException] = []
    together = threading.Barrier(12)

    def work(number: int) -> None:
        try:
            for directory in directories:
                together.wait()
                layout = OciLayoutWriter(str(directory))
                blob = layout.add(io.BytesIO(b"%d" % number))
                layout.list_image(Descriptor(MANIFEST_TYPE, blob.digest, blob.size, {}, {}), str(number))
        except BaseException as error:  # noqa: BLE001 - shown below
            together.abort()
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    for directory in directories:
        assert len(index_of(directory)) == 12


def test_a_directory_with_other_things_in_it_is_left_alone(
    store: Store, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").touch()

    with pytest.raises(InvalidRequest, match="neither an OCI image layout nor empty"):
        export_images(store, [image.id], f"oci:{tmp_path}/home")

    assert os.listdir(tmp_path / "home") == ["letter"]


def test_a_layer_that_has_changed_is_not_passed_off_as_the_image(
    store: Store, image: Image, tmp_path: Path
) -> None:
    spoil(store, image.layer or "")
    (tmp_path / "image.tar").write_bytes(b"what was there")

    for destination in [f"docker-archive:{tmp_path}/image.tar", f"oci:{tmp_path}/out"]:
        with pytest.raises((DigestMismatch, InvalidArchive)):
            export_images(store, [image.id], destination)

    assert (tmp_path / "image.tar").read_bytes() == b"what was there"
    assert index_of(tmp_path / "out") == []
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_layer_that_has_changed_may_be_packed_anew(store: Store, image: Image, tmp_path: Path) -> None:
    spoil(store, image.layer or "")

    (written,) = export_images(store, [image.id], f"oci:{tmp_path}/out", repack=True)

    assert written.repacked == (image.layer,)
    assert_whole(tmp_path / "out")
    again = import_image(store, f"oci:{tmp_path}/out")
    assert again.id != image.id
    with store.mounting(again.id, read_only=True) as root:
        assert Path(root, "etc/name").read_bytes() == b"changed"


def test_an_image_made_of_a_layer_alone_gets_its_documents(store: Store, tmp_path: Path) -> None:
    layer = store.create_layer()
    with store.mounting(layer.id) as root:
        Path(root, "file").write_bytes(b"content")
    image = store.create_image(layer.id)

    export_images(store, [image.id], f"oci:{tmp_path}/out")
    export_images(store, [image.id], f"docker-archive:{tmp_path}/image.tar")

    again = import_image(store, f"oci:{tmp_path}/out")
    with store.mounting(again.id, read_only=True) as root:
        assert Path(root, "file").read_bytes() == b"content"
    with opened_archive(tmp_path / "image.tar") as archive:
        assert archive.manifest().config.digest == f"sha256:{again.id}"


def test_an_image_without_layers_goes_out_as_well(store: Store, tmp_path: Path) -> None:
    image = store.create_image(None)

    export_images(store, [image.id], f"oci:{tmp_path}/out")

    assert manifest_of(tmp_path / "out")["layers"] == []


def test_several_images_in_one_archive_share_layers(
    store: Store, image: Image, layout: Layout, tmp_path: Path
) -> None:
    layout.list()
    layout.image(BASE)
    other = import_image(store, f"oci:{layout.path}", names=["bare", "quay.io/x/other:2"])
    path = tmp_path / "images.tar"

    export_images(store, [image.id, other.id], f"docker-archive:{path}")

    with opened_archive(path) as archive:
        assert [each.tags for each in archive.images] == [
            ("localhost/mine:latest",),
            ("localhost/bare:latest", "quay.io/x/other:2"),
        ]
        assert archive.images[1].layers == archive.images[0].layers[:1]
        assert archive.manifest("@0").config.digest == f"sha256:{image.id}"
    with pytest.raises(InvalidRequest, match="names one image"):
        export_images(store, [image.id, other.id], f"docker-archive:{path}:name")


def test_an_image_that_is_named_twice_is_written_once(store: Store, image: Image, tmp_path: Path) -> None:
    path = tmp_path / "images.tar"

    written = export_images(store, [image.id, image.names[0]], f"docker-archive:{path}")

    assert len(written) == 1
    with opened_archive(path) as archive:
        assert len(archive.images) == 1


def test_the_same_image_gives_the_same_archive(store: Store, image: Image, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_images(store, [image.id], f"docker-archive:{tmp_path}/{name}:mine:1.0")

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with opened_archive(tmp_path / "one") as archive:
        assert archive.image().tags == ("mine:1.0",)


def test_an_archive_may_go_through_a_pipe(store: Store, image: Image, tmp_path: Path) -> None:
    fifo, received = tmp_path / "fifo", tmp_path / "received"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.write_bytes(fifo.read_bytes()))
    reader.start()

    export_images(store, [image.id], f"docker-archive:{fifo}")

    reader.join()
    with opened_archive(received) as archive:
        assert archive.manifest().config.digest == f"sha256:{image.id}"


@pytest.mark.parametrize("destination", ["dir:/nowhere", "image.tar", "oci", ""])
def test_other_destinations_are_refused(store: Store, image: Image, destination: str) -> None:
    with pytest.raises(InvalidRequest, match="neither oci:"):
        export_images(store, [image.id], destination)


def test_progress_is_told_in_bytes(store: Store, image: Image, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    export_images(
        store,
        [image.id],
        f"oci:{tmp_path}/out",
        progress=lambda progress: told.append((progress.done, progress.total)),
    )

    assert (len(BASE), len(BASE)) in told
    assert told[-1] == (len(TOP), len(TOP))
