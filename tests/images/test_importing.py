from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hostspec.errors import DigestMismatch, InvalidArchive, InvalidRequest
from hostspec.images import import_image
from hostspec.images.platforms import go_architecture
from hostspec.store import Image, Store
from tests.images.layouts import INDEX_TYPE, Layout
from tests.store.tars import digest_of, tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10)


def names_of_layers(store: Store) -> list[str]:
    return [layer.id for layer in store.layers()]


def content_of(store: Store, image: Image, path: str) -> bytes:
    with store.mounting(image.id, read_only=True) as root:
        return Path(root, path).read_bytes()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_an_image_of_a_layout_is_known_by_its_configuration(store: Store, layout: Layout) -> None:
    manifest = layout.image(BASE, TOP, tag="latest")

    made = import_image(store, f"oci:{layout.path}", names=["localhost/mine:latest"])

    config = json.loads(layout.blob(manifest))["config"]["digest"]
    assert made.id == config.removeprefix("sha256:")
    assert made.names == ("localhost/mine:latest",)
    assert made.digest == manifest
    assert store.big_data(made, "manifest") == layout.blob(manifest)
    assert store.big_data(made, config) == layout.blob(config)
    assert content_of(store, made, "etc/name") == b"top\n"


def test_layers_that_are_there_are_used_again(store: Store, layout: Layout, tmp_path: Path) -> None:
    layout.image(BASE, TOP)
    first = import_image(store, f"oci:{layout.path}")
    other = Layout(tmp_path / "other")
    other.image(BASE, tar_of({"new": b""}))
    before = names_of_layers(store)

    second = import_image(store, f"oci:{other.path}")
    again = import_image(store, f"oci:{layout.path}", names=["again"])

    assert len(names_of_layers(store)) == len(before) + 1
    assert store.layer(second.layer or "").parent == store.layer(first.layer or "").parent
    assert again.id == first.id
    assert again.names == ("localhost/again:latest",)


def test_the_same_content_on_another_parent_is_another_layer(store: Store, layout: Layout) -> None:
    layout.image(BASE, TOP, tag="two")
    layout.image(TOP, tag="one")

    import_image(store, f"oci:{layout.path}:two")
    import_image(store, f"oci:{layout.path}:one")

    assert len(names_of_layers(store)) == 3


@pytest.mark.parametrize(
    ("kind", "compress"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_layers_of_a_layout_may_be_compressed(
    store: Store, layout: Layout, kind: str, compress: Callable[[bytes], bytes]
) -> None:
    layout.image(BASE, compress=compress, layer_type=f"application/vnd.oci.image.layer.v1.tar+{kind}")

    made = import_image(store, f"oci:{layout.path}")

    assert store.layer(made.layer or "").diff_digest == digest_of(BASE)
    assert content_of(store, made, "etc/name") == b"base\n"


def test_docker_schema_2_is_understood(store: Store, layout: Layout) -> None:
    layout.image(
        BASE,
        manifest_type="application/vnd.docker.distribution.manifest.v2+json",
        layer_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
        compress=gzip.compress,
    )

    assert content_of(store, import_image(store, f"oci:{layout.path}"), "etc/name") == b"base\n"


def test_of_several_images_one_is_chosen_by_its_tag(store: Store, layout: Layout) -> None:
    layout.image(BASE, tag="one")
    layout.image(TOP, tag="two")

    assert content_of(store, import_image(store, f"oci:{layout.path}:two"), "etc/name") == b"top\n"
    for place, problem in [("", "several images"), (":three", "no image tagged 'three'")]:
        with pytest.raises(InvalidRequest, match=f"{problem}.*tags: one, two"):
            import_image(store, f"oci:{layout.path}{place}")


def test_the_image_for_this_machine_is_found_in_a_nested_index(store: Store, layout: Layout) -> None:
    mine = layout.image(BASE, listed=False)
    other = layout.image(TOP, listed=False)
    inner = layout.index(
        layout.entry(other, platform={"os": "linux", "architecture": "pdp11"}),
        layout.entry(mine, platform={"os": "linux", "architecture": go_architecture()}),
    )
    middle = layout.index(
        layout.entry(inner, INDEX_TYPE, platform={"os": "linux", "architecture": go_architecture()})
    )
    layout.list(layout.entry(middle, INDEX_TYPE))

    assert content_of(store, import_image(store, f"oci:{layout.path}"), "etc/name") == b"base\n"


def test_an_index_without_this_platform_says_so(store: Store, layout: Layout) -> None:
    other = layout.image(BASE, listed=False)
    entry = layout.entry(other, platform={"os": "plan9", "architecture": "mips"})
    layout.list(layout.entry(layout.index(entry), INDEX_TYPE))

    with pytest.raises(InvalidRequest, match=f"no image for linux/{go_architecture()}.*plan9/mips"):
        import_image(store, f"oci:{layout.path}")


def _damage_layer(layout: Layout) -> None:
    layout.replace(digest_of(TOP), tar_of({"etc/name": b"evil"}))


def _truncate_layer(layout: Layout) -> None:
    layout.replace(digest_of(TOP), TOP[: len(TOP) // 3])


def _remove_layer(layout: Layout) -> None:
    layout.remove(digest_of(TOP))


def _lie_about_the_diff_id(layout: Layout) -> None:
    layout.list()
    layout.image(BASE, TOP, diff_ids=[digest_of(BASE), digest_of(b"")])


def _forget_a_diff_id(layout: Layout) -> None:
    layout.list()
    layout.image(BASE, TOP, diff_ids=[digest_of(BASE)])


def _damage_manifest(layout: Layout) -> None:
    digest = layout.listed()[0]["digest"]
    layout.replace(digest, b"{}".ljust(len(layout.blob(digest))))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (_damage_layer, DigestMismatch),
        (_truncate_layer, InvalidArchive),
        (_remove_layer, InvalidArchive),
        (_lie_about_the_diff_id, DigestMismatch),
        (_forget_a_diff_id, InvalidArchive),
        (_damage_manifest, DigestMismatch),
    ],
)
def test_a_damaged_layout_leaves_nothing(
    store: Store, layout: Layout, damage: Callable[[Layout], None], error: type[Exception]
) -> None:
    layout.image(BASE, TOP)
    damage(layout)

    with pytest.raises(error):
        import_image(store, f"oci:{layout.path}", names=["mine"])

    assert (*store.layers(), *store.images()) == ()
    assert list(store.driver.list_layers()) == []


def test_a_layer_that_was_there_before_survives_a_failed_import(store: Store, layout: Layout) -> None:
    kept = store.import_layer(layout.write(BASE))
    layout.image(BASE, TOP)
    _damage_layer(layout)

    with pytest.raises(DigestMismatch):
        import_image(store, f"oci:{layout.path}")

    assert names_of_layers(store) == [kept.id]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"manifests": 3}', b'{"manifests": [{}]}', b'{"manifests":' + b"[" * 100_000],
)
def test_a_broken_index_is_an_error_that_names_it(store: Store, layout: Layout, content: bytes) -> None:
    Path(layout.path, "index.json").write_bytes(content)

    with pytest.raises(InvalidArchive, match=r"index\.json"):
        import_image(store, f"oci:{layout.path}")


@pytest.mark.parametrize("change", [{"annotations": ["a"]}, {"platform": "linux"}, {"size": True}])
def test_a_descriptor_with_fields_of_wrong_types_is_refused(
    store: Store, layout: Layout, change: dict[str, object]
) -> None:
    layout.image(BASE)
    layout.list({**layout.listed()[0], **change})

    with pytest.raises(InvalidArchive, match=r"index\.json"):
        import_image(store, f"oci:{layout.path}")


@pytest.mark.parametrize("part", ["manifest", "config", "layers"])
def test_a_blob_of_another_length_than_its_descriptor_says_is_refused_unread(
    store: Store, layout: Layout, part: str
) -> None:
    digest = layout.image(BASE)
    if part != "manifest":
        found = json.loads(layout.blob(digest))[part]
        digest = (found[0] if part == "layers" else found)["digest"]
    name = layout.path / "blobs" / digest.replace(":", "/")
    os.truncate(name, 1 << 40)  # sparse, and more than fits into memory

    with pytest.raises(InvalidArchive, match=r"has 1099511627776 bytes instead of \d+"):
        import_image(store, f"oci:{layout.path}")
    assert (*store.layers(), *store.images()) == ()


def test_an_endless_index_is_not_read_into_memory(store: Store, layout: Layout) -> None:
    os.truncate(layout.path / "index.json", 1 << 40)

    with pytest.raises(InvalidArchive, match=r"index\.json.*longer than"):
        import_image(store, f"oci:{layout.path}")


def test_nobody_waits_for_a_pipe_in_a_layout(store: Store, layout: Layout) -> None:
    (layout.path / "index.json").unlink()
    os.mkfifo(layout.path / "index.json")

    with pytest.raises(InvalidArchive, match=r"index\.json.*no file"):
        import_image(store, f"oci:{layout.path}")


def test_what_is_no_layout_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not an OCI image layout"):
        import_image(store, f"oci:{tmp_path}")
    with pytest.raises(InvalidRequest, match="nowhere"):
        import_image(store, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_a_tar_may_be_compressed_in_any_way(
    store: Store, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(compress(BASE))

    made = import_image(store, str(path), names=["mine"])

    (diff_id,) = json.loads(store.big_data(made, f"sha256:{made.id}"))["rootfs"]["diff_ids"]
    assert diff_id == digest_of(BASE)
    assert content_of(store, made, "etc/name") == b"base\n"


def test_a_directory_and_further_layers_become_one_image(store: Store, tmp_path: Path) -> None:
    root, tar = tmp_path / "root", tmp_path / "tar"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_bytes(b"from the directory")
    os.chown(root / "etc/name", 33, 44)
    (root / "etc/gone").touch()
    tar.write_bytes(tar_of({"etc/.wh.gone": b"", "etc/new": b"new"}))

    made = import_image(store, str(root), further_layers=[str(tar)])

    with store.mounting(made.id, read_only=True) as mounted:
        assert sorted(os.listdir(f"{mounted}/etc")) == ["name", "new"]
        assert os.stat(f"{mounted}/etc/name").st_uid == 33
    manifest = json.loads(store.big_data(made, "manifest"))
    assert len(manifest["layers"]) == 2


def test_the_same_directory_twice_is_one_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(b"x")

    first = import_image(store, str(tmp_path / "root"), names=["mine"])
    second = import_image(store, str(tmp_path / "root"), names=["mine"])

    assert first.layer == second.layer
    assert len(store.layers()) == 1
    assert store.image("mine").id == second.id, "a name goes to the image that was made last"


def test_a_broken_second_tar_takes_the_first_layer_with_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(BASE)
    (tmp_path / "second").write_bytes(TOP[:700])

    with pytest.raises(InvalidArchive):
        import_image(store, str(tmp_path / "first"), further_layers=[str(tmp_path / "second")])

    assert (*store.layers(), *store.images()) == ()


def test_a_layout_without_an_index_is_broken(store: Store, layout: Layout) -> None:
    Path(layout.path, "index.json").unlink()

    with pytest.raises(InvalidArchive, match=r"index\.json.*No such file"):
        import_image(store, f"oci:{layout.path}")
