"""A layer's diff against its parent is the tar that it came from, bit by bit."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from hostspec.errors import DriverFailed, InvalidArchive
from hostspec.idmap import IdMap
from hostspec.images import import_image
from hostspec.store import Layer, Store, open_store
from hostspec.store.configuration.policy import Strategy
from hostspec.testing.requirements import require_or_skip
from tests.store.tars import MAP, tar_of

MAPPED = IdMap.parse([MAP], [MAP])
BASE = tar_of({"etc": None, "etc/name": b"base\n", "a": b"x" * 70_000, 'q"ü': b"odd"}) + bytes(1_000_000)
TOP = tar_of({"etc/name": b"top\n", ".wh.a": b""}, uid=10, gid=20)
TWICE = tar_of({"file": b"first", "./file": b"second", "last": b"x"})
SKOPEO = "skopeo"
GO = "containers-storage"


@pytest.fixture
def store(store_of_each_driver: Store) -> Store:
    return store_of_each_driver


def diff_of(store: Store, layer: Layer | str, parent: str | None = None) -> bytes:
    with store.diff(layer if isinstance(layer, str) else layer.id, parent) as stream:
        return stream.read()


def store_beside(store: Store) -> Store:
    """Open another store, to which this one is an additional one."""
    directory = f"{os.path.dirname(store.root)}/other"
    return open_store(
        root=f"{directory}/graph",
        run_root=f"{directory}/run",
        driver=store.driver_name,
        options=[f"imagestore={store.root}"],
    )


def names_in(tar: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return set(opened.getnames())


def tar_splits(store: Store) -> set[str]:
    """Return the IDs of layers with a tar-split file; there is nothing else that looks like one."""
    suffix = ".tar-split.gz"
    return {
        name.removesuffix(suffix)
        for name in os.listdir(os.path.join(store.root, f"{store.driver_name}-layers"))
        if suffix in name or name.startswith(".tmp")
    }


def path_of(store: Store, layer: Layer) -> str:
    return os.path.join(store.root, f"{store.driver_name}-layers", f"{layer.id}.tar-split.gz")


def test_layers_give_back_the_tars_they_came_from(store: Store) -> None:
    base = store.import_layer(io.BytesIO(gzip.compress(BASE)))
    top = store.import_layer(io.BytesIO(TOP), base.id)
    assert diff_of(store, base) == BASE
    assert diff_of(store, top) == diff_of(store, top, base.id) == TOP
    assert top.diff_digest == f"sha256:{hashlib.sha256(TOP).hexdigest()}"
    assert tar_splits(store) == {base.id, top.id}
    assert os.stat(path_of(store, top)).st_mode & 0o7777 == 0o600


def test_a_diff_against_another_layer_is_packed(store: Store) -> None:
    base = store.import_layer(io.BytesIO(BASE))
    other = store.import_layer(io.BytesIO(tar_of({"other": b"1"})))
    top = store.import_layer(io.BytesIO(TOP), base.id)
    found = diff_of(store, top, other.id)
    assert found != TOP
    assert ".wh.other" in names_in(found)


def test_the_last_diff_that_was_applied_is_given_back(store: Store) -> None:
    layer = store.create_layer()
    store.apply_diff(layer.id, io.BytesIO(BASE))
    assert diff_of(store, layer) == BASE
    store.apply_diff(layer.id, io.BytesIO(TOP))
    assert diff_of(store, layer) == TOP
    store.apply_diff(layer.id, io.BytesIO(TWICE))
    assert tar_splits(store) == set()
    assert {"file", "last"} < names_in(diff_of(store, layer))


def test_deleting_a_layer_deletes_its_tar_split(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(BASE))
    store.delete_layer(layer.id)
    assert tar_splits(store) == set()


@pytest.mark.parametrize("damage", [BASE[:40_000], gzip.compress(BASE)[:300], b"no tar" * 1000])
def test_an_import_that_fails_leaves_none(damage: bytes, store: Store) -> None:
    with pytest.raises(InvalidArchive):
        store.import_layer(io.BytesIO(damage))
    assert tar_splits(store) == set()


def test_a_source_that_fails_on_the_way_says_so(store: Store) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the registry is gone")
            return data

    with pytest.raises(DriverFailed, match="the registry is gone"):
        store.import_layer(Failing(BASE))
    assert tar_splits(store) == set()
    assert store.layers() == ()


def test_an_import_under_a_taken_id_leaves_the_other_layers(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(BASE), layer_id="taken")
    with pytest.raises(Exception, match="taken"):
        store.import_layer(io.BytesIO(TOP), layer_id="taken")
    assert diff_of(store, layer) == BASE


def test_a_layer_with_a_file_twice_is_imported_all_the_same(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(TWICE))
    assert tar_splits(store) == set()
    assert names_in(diff_of(store, layer)) == {"file", "last"}


@pytest.mark.parametrize("strategy", ["template", "copy"])
def test_a_mapped_copy_gives_back_the_same_tar(strategy: Strategy, store: Store) -> None:
    base = store.import_layer(io.BytesIO(BASE))
    top = store.import_layer(io.BytesIO(TOP), base.id)
    image = store.create_image(top.id)
    store.create_container(image.id, idmap=MAPPED, strategy=strategy)
    (copy,) = store.image(image.id).mapped_layers
    assert diff_of(store, copy) == TOP
    assert os.path.samefile(path_of(store, store.layer(copy)), path_of(store, top)), "it was copied"
    store.delete_container(store.containers()[0].id)
    store.delete_layer(copy)
    assert diff_of(store, top) == TOP


def test_what_a_killed_process_left_of_one_goes_with_the_layer(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(BASE))
    directory, name = os.path.split(path_of(store, layer))
    Path(directory, f".tmp-{name}").write_bytes(b"a part")
    store.delete_layer(layer.id)
    assert tar_splits(store) == set()


def test_layers_of_an_additional_store_give_back_their_tars(store: Store) -> None:
    base = store.import_layer(io.BytesIO(BASE))
    top = store.import_layer(io.BytesIO(TOP), base.id)
    with store_beside(store) as other:
        assert diff_of(other, top.id) == TOP
        own = other.import_layer(io.BytesIO(BASE), top.id)
        assert diff_of(other, own) == BASE


def test_a_mapped_copy_of_an_additional_stores_image_gives_back_its_tar(store: Store) -> None:
    image = store.create_image(store.import_layer(io.BytesIO(BASE)).id)
    with store_beside(store) as other:
        container = other.create_container(image.id, idmap=MAPPED, strategy="copy")
        copy = other.layer(other.layer(container.layer).parent or "")
        assert copy.idmap == MAPPED
        assert tar_splits(other) == {copy.id}
        assert diff_of(other, copy) == BASE


def test_a_layer_whose_files_were_changed_is_packed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    layer = store.import_layer(io.BytesIO(BASE))
    with store.mounting(layer.id) as path:
        Path(path, "a").write_bytes(b"longer" * 70_000)
    found = diff_of(store, layer)
    assert b"longer" * 70_000 in found
    assert "'a': it is not as the layer brought it" in caplog.text


def test_a_file_changed_in_place_is_never_given_out_as_it_was(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(BASE))
    with store.mounting(layer.id) as path:
        Path(path, "a").write_bytes(b"y" * 70_000)
    with pytest.raises(InvalidArchive, match="'a'"):
        diff_of(store, layer)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b\x08 nothing", gzip.compress(b'{"type":7}\n')],
    ids=["empty", "broken", "of-unknown-type"],
)
def test_a_damaged_tar_split_leads_to_a_packed_diff(content: bytes, store: Store) -> None:
    layer = store.import_layer(io.BytesIO(BASE))
    Path(path_of(store, layer)).write_bytes(content)
    assert "etc/name" in names_in(diff_of(store, layer))


def by_go(store: Store, command: str, *arguments: str) -> bytes:
    if shutil.which(GO) is None:
        require_or_skip(GO, "is not installed; Debian's package has the same name")
    places = ["--graph", store.root, "--run", store.run_root, "--storage-driver", store.driver_name]
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
    program = [GO, command, *places, *arguments]
    return subprocess.run(program, check=True, capture_output=True, env=environment).stdout


def test_the_go_library_gives_back_what_hostspec_imported(store: Store) -> None:
    base = store.import_layer(io.BytesIO(gzip.compress(BASE)))
    top = store.import_layer(io.BytesIO(TOP), base.id)
    assert by_go(store, "diff", "-u", base.id) == BASE
    assert by_go(store, "diff", "-u", top.id) == TOP
    by_go(store, "delete-layer", top.id)
    assert tar_splits(store) == {base.id}


def test_hostspec_gives_back_what_the_go_library_imported(store: Store, tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(BASE)
    (tmp_path / "top.tar").write_bytes(TOP)
    base = by_go(store, "import-layer", "-f", str(tmp_path / "base.tar")).decode().split()[0]
    top = by_go(store, "import-layer", "-f", str(tmp_path / "top.tar"), base).decode().split()[0]
    assert diff_of(store, base) == BASE
    assert diff_of(store, top) == TOP


def test_skopeo_copies_an_image_out_with_the_digests_it_came_with(store: Store, tmp_path: Path) -> None:
    if shutil.which(SKOPEO) is None:
        require_or_skip(SKOPEO, "is not installed; Debian's package has the same name")
    if store.driver_name == "btrfs":
        pytest.skip("Debian's skopeo is built without btrfs")
    for name, content in (("base.tar", BASE), ("top.tar.gz", gzip.compress(TOP))):
        (tmp_path / name).write_bytes(content)
    image = import_image(store, str(tmp_path / "base.tar"), further_layers=[str(tmp_path / "top.tar.gz")])
    source = f"containers-storage:[{store.driver_name}@{store.root}+{store.run_root}]@{image.id}"
    layout = tmp_path / "oci"
    subprocess.run(
        [SKOPEO, "--insecure-policy", "copy", source, f"oci:{layout}:tag"],
        check=True,
        capture_output=True,
        env={**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull},
    )
    manifest = blob(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    layers = [blob(layout, each["digest"]) for each in json.loads(manifest)["layers"]]
    assert [gzip.decompress(each) for each in layers] == [BASE, TOP]


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()
