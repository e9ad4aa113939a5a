from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.errors import InvalidArchive, InvalidRequest
from hostspec.images.archive_members import ArchiveMembers
from hostspec.images.docker_archive_writer import DockerArchiveWriter
from hostspec.images.sources import image_source
from tests.images.archives import archive, as_docker_saved, config_of, link, listed, opened_archive
from tests.store.tars import digest_of, tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10)


def is_docker_archive(path: str) -> bool:
    with image_source(path) as found:
        return found is not None


def layers_of(path: Path, reference: str | None = None) -> list[bytes]:
    with opened_archive(path) as opened:
        manifest = opened.manifest(reference)
        return [opened.open_blob(layer).read() for layer in manifest.layers]


def test_an_image_is_read_with_its_layers_in_order(tmp_path: Path) -> None:
    path = as_docker_saved(tmp_path / "image.tar", BASE, TOP)

    with opened_archive(path) as opened:
        manifest = opened.manifest()
        config = opened.blob(manifest.config)

    assert layers_of(path) == [BASE, TOP]
    assert config == config_of(BASE, TOP)
    assert [layer.digest for layer in manifest.layers] == [digest_of(BASE), digest_of(TOP)]
    assert [layer.size for layer in manifest.layers] == [len(BASE), len(TOP)]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_the_whole_archive_may_be_compressed(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = as_docker_saved(tmp_path / "image.tar", BASE, TOP)
    path.write_bytes(compress(path.read_bytes()))

    assert layers_of(path) == [BASE, TOP]
    assert is_docker_archive(str(path))


def test_an_archive_may_come_through_a_pipe(tmp_path: Path) -> None:
    path = as_docker_saved(tmp_path / "image.tar", BASE)
    read, write = os.pipe()
    with open(write, "wb") as file:
        file.write(path.read_bytes())
    with open(read, "rb"):
        assert layers_of(Path(f"/proc/self/fd/{read}")) == [BASE]


def test_compressed_layers_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    members = {
        "config": config_of(BASE),
        "layer": gzip.compress(BASE),
        "manifest.json": json.dumps([listed("config", ["layer"])]).encode(),
    }
    path = archive(tmp_path / "image.tar", members)

    with opened_archive(path) as opened:
        (layer,) = opened.manifest().layers
    assert (layer.digest, layer.size) == (digest_of(BASE), len(BASE))
    assert layers_of(path) == [BASE]


def test_a_layer_may_be_a_link_to_another_ones_file(tmp_path: Path) -> None:
    members = {
        "config": config_of(BASE, BASE, BASE),
        "one/layer.tar": BASE,
        "two/layer.tar": link("../one/layer.tar"),
        "three/layer.tar": link("two/layer.tar", tarfile.LNKTYPE),
        "manifest.json": json.dumps(
            [listed("config", ["one/layer.tar", "two/layer.tar", "three/layer.tar"])]
        ).encode(),
    }

    assert layers_of(archive(tmp_path / "image.tar", members)) == [BASE, BASE, BASE]


@pytest.mark.parametrize(
    "layer",
    [link("/etc/passwd"), link("../../../../etc/passwd"), link("layer"), link("", tarfile.FIFOTYPE)],
    ids=["absolute", "relative", "loop", "fifo"],
)
def test_no_link_leads_out_of_the_archive(tmp_path: Path, layer: tarfile.TarInfo) -> None:
    document = json.dumps([listed("config", ["layer"])]).encode()
    members = {"config": config_of(BASE), "layer": layer, "manifest.json": document}

    with pytest.raises(InvalidArchive, match="'layer': is not a file in the archive"):
        layers_of(archive(tmp_path / "image.tar", members))


def test_one_of_several_images_is_chosen_by_name_or_place(tmp_path: Path) -> None:
    members = {
        "one": config_of(BASE),
        "two": config_of(TOP),
        "base": BASE,
        "top": TOP,
        "manifest.json": json.dumps(
            [listed("one", ["base"], "quay.io/x/one:1", "uno"), listed("two", ["top"])]
        ).encode(),
    }
    path = archive(tmp_path / "image.tar", members)

    for reference in ["quay.io/x/one:1", "uno", "docker.io/library/uno:latest", "@0"]:
        assert layers_of(path, reference) == [BASE]
    assert layers_of(path, "@1") == [TOP]
    for missing, problem in [(None, "several images"), ("three", "no image three"), ("@2", "no image @2")]:
        with pytest.raises(InvalidRequest, match=rf"{problem}.*@0 quay.io/x/one:1 uno, @1"):
            layers_of(path, missing)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[3]", b'[{"Config": 3}]', b'[{"Config": "c", "Layers": 3}]', b'[{"Layers": []}]'],
)
def test_a_broken_list_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = archive(tmp_path / "image.tar", {"manifest.json": content})

    with pytest.raises(InvalidArchive, match=r"manifest\.json"):
        layers_of(path)


def test_an_archive_of_a_very_old_docker_says_what_to_do(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", {"repositories": b"{}"})

    with pytest.raises(InvalidArchive, match=r"older than 1\.10"):
        layers_of(path)


def test_a_truncated_archive_is_broken(tmp_path: Path) -> None:
    path = as_docker_saved(tmp_path / "image.tar", BASE, TOP)
    content = path.read_bytes()
    for length in range(1, len(content) - 2 * tarfile.RECORDSIZE, 700):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidArchive):
            layers_of(path)


def test_an_endless_name_is_not_read_into_memory(tmp_path: Path) -> None:
    path = as_docker_saved(tmp_path / "archive", BASE)
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(name.tobuf(tarfile.GNU_FORMAT))
        file.seek(name.size, os.SEEK_CUR)  # sparse
        file.write(content)

    with pytest.raises(InvalidArchive, match="extended header of 1099511627776 bytes"):
        ArchiveMembers(str(path))


def test_what_is_no_archive_of_images_is_not_taken_for_one(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    for content in [BASE, gzip.compress(BASE), tar_of({"manifest.json": b"[]"}), b"", b"no tar" * 200]:
        rootfs.write_bytes(content)
        assert not is_docker_archive(str(rootfs))
    assert is_docker_archive(str(as_docker_saved(tmp_path / "image.tar", BASE)))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere.*No such file"):
        layers_of(tmp_path / "nowhere")


IMAGES = st.lists(
    st.tuples(
        st.lists(st.binary(max_size=1500).map(b"tar".__add__), max_size=4),
        st.lists(
            st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}:[a-z0-9]{1,8}", fullmatch=True), max_size=2, unique=True
        ),
    ),
    max_size=4,
)


@given(images=IMAGES)
def test_what_is_written_is_read_again(images: list[tuple[list[bytes], list[str]]]) -> None:
    file = io.BytesIO()
    writer = DockerArchiveWriter(file)
    for layers, tags in images:
        digests = [writer.add_layer(io.BytesIO(layer)) for layer in layers]
        writer.add_image(config_of(*layers), digests, tags)
    writer.finish()

    fd = os.memfd_create("archive")
    with open(fd, "wb", closefd=False) as target:
        target.write(file.getvalue())
    try:
        path = Path(f"/proc/self/fd/{fd}")
        with opened_archive(path) as opened:
            assert [list(image.tags) for image in opened.images] == [tags for _, tags in images]
        for place, (layers, _) in enumerate(images):
            assert layers_of(path, f"@{place}") == layers
    finally:
        os.close(fd)


def test_a_layer_of_two_images_is_written_once() -> None:
    file = io.BytesIO()
    writer = DockerArchiveWriter(file)
    for layer in [BASE, BASE, TOP, BASE]:
        writer.add_layer(io.BytesIO(layer))
    writer.finish()

    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        contents = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".tar")]
        assert [content.read() for content in contents if content is not None] == [BASE, TOP]


def test_the_lists_of_older_dockers_lead_to_the_layers(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with path.open("w+b") as file:
        writer = DockerArchiveWriter(file)
        digests = [writer.add_layer(io.BytesIO(layer)) for layer in (BASE, TOP)]
        writer.add_image(config_of(BASE, TOP), digests, ["localhost:5000/mine:1.0"])
        writer.finish()

    with tarfile.open(path) as tar:
        found = {name: tar.extractfile(name) for name in tar.getnames()}
        contents = {name: file.read() for name, file in found.items() if file is not None}
    top = json.loads(contents["repositories"])["localhost:5000/mine"]["1.0"]
    described = json.loads(contents[f"{top}/json"])
    assert described["os"] == "linux"
    assert contents[f"{top}/layer.tar"] == TOP
    assert contents[f"{described['parent']}/layer.tar"] == BASE
