from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hostspec.entry_points import announced
from hostspec.errors import (
    DigestMismatch,
    DriverNotInstalled,
    Duplicate,
    InvalidArchive,
    InvalidRequest,
    StoreReadOnly,
    Unknown,
)
from hostspec.idmap import IdMap
from hostspec.plugins import ENTRY_POINT_GROUP, installed_drivers
from hostspec.store import Image, Store, open_store
from hostspec.testing.requirements import require_or_skip
from hostspec.values import Progress
from tests.store.conftest import OpenStore
from tests.store.invariants import faults_of
from tests.store.tars import MAP, digest_of, tar_of

TAR = tar_of({"file": b"content\n", ".wh.gone": b""}, uid=1000, gid=100)


def test_a_layer_is_imported_with_digests_sizes_and_owners(store: Store) -> None:
    packed = gzip.compress(TAR)
    layer = store.import_layer(io.BytesIO(packed), names=["one"])
    assert layer.diff_digest == digest_of(TAR)
    assert layer.diff_size == len(TAR)
    assert layer.compressed_digest == digest_of(packed)
    assert layer.compressed_size == len(packed)
    assert layer.compression == 2
    assert (layer.uids, layer.gids) == ((1000,), (100,))
    assert store.layer("one") == layer
    with store.mounting("one") as path:
        status = os.stat(os.path.join(path, "file"))
        assert (status.st_uid, status.st_gid) == (1000, 100)


@pytest.mark.parametrize(
    ("pack", "number"),
    [
        (bytes, 0),
        (bz2.compress, 1),
        (gzip.compress, 2),
        (lzma.compress, 3),
        (zstandard.compress, 4),
        (lambda tar: gzip.compress(tar[:700]) + gzip.compress(tar[700:]), 2),
    ],
)
def test_every_common_compression_is_recognised(
    store: Store, pack: Callable[[bytes], bytes], number: int
) -> None:
    packed = pack(TAR)
    layer = store.import_layer(
        io.BytesIO(packed), expected_digest=digest_of(packed), expected_diff_id=digest_of(TAR)
    )
    assert layer.compression == number
    assert layer.diff_digest == digest_of(TAR)
    assert layer.compressed_digest == digest_of(packed)


def test_a_layer_can_be_imported_from_a_path(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(TAR)
    told: list[Progress] = []
    assert store.import_layer(path, progress=told.append).diff_digest == digest_of(TAR)
    assert told[-1] == Progress(len(TAR), len(TAR), "bytes")
    with pytest.raises(InvalidRequest, match="nowhere"):
        store.import_layer(str(tmp_path / "nowhere"))


def test_owners_are_mapped_when_a_layer_is_imported_under_a_map(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(TAR), idmap=IdMap.parse([MAP]))
    assert layer.uids == (1000,)
    with store.mounting(layer.id) as path:
        assert os.stat(os.path.join(path, "file")).st_uid == 101000
    child = store.create_layer(layer.id)
    assert child.idmap == layer.idmap


def test_a_layer_on_a_parent_under_another_map_is_shifted(store: Store) -> None:
    parent = store.import_layer(io.BytesIO(TAR))
    child = store.create_layer(parent.id, idmap=IdMap.parse([MAP]))
    with store.mounting(child.id) as path:
        assert os.stat(os.path.join(path, "file")).st_uid == 101000
    with store.mounting(parent.id) as path:
        assert os.stat(os.path.join(path, "file")).st_uid == 1000


@pytest.mark.parametrize("which", ["expected_digest", "expected_diff_id"])
def test_content_that_was_not_promised_leaves_no_layer(store: Store, which: str) -> None:
    with pytest.raises(DigestMismatch) as caught:
        store.import_layer(io.BytesIO(gzip.compress(TAR)), **{which: digest_of(b"else")})  # type: ignore[arg-type]
    assert caught.value.expected == digest_of(b"else")
    assert store.layers() == ()
    assert list(store.driver.list_layers()) == []


@pytest.mark.parametrize(
    "content", [TAR[:700], gzip.compress(TAR)[:-20], b"no tar at all, but as long as a block" * 20]
)
def test_a_broken_tar_leaves_no_layer(store: Store, content: bytes) -> None:
    with pytest.raises(InvalidArchive):
        store.import_layer(io.BytesIO(content))
    assert store.layers() == ()
    assert list(store.driver.list_layers()) == []
    working_areas = os.path.join(store.driver.home, "tempdirs")
    assert not any(files for _, _, files in os.walk(working_areas) if "file" in files)


def test_a_digest_in_no_known_form_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="sha256"):
        store.import_layer(io.BytesIO(TAR), expected_digest="strange:1")


def test_a_layer_with_the_same_content_on_the_same_parent_is_found_again(store: Store) -> None:
    base = store.import_layer(io.BytesIO(TAR))
    top = store.import_layer(io.BytesIO(TAR), base.id)
    assert store.find_layer(digest_of(TAR)) == base
    assert store.find_layer(digest_of(TAR), base.id) == top
    assert store.find_layer(digest_of(TAR), top.id) is None


def test_an_id_or_name_is_given_once(store: Store) -> None:
    layer = store.create_layer(layer_id="mine", names=["one"])
    assert layer.id == "mine"
    with pytest.raises(Duplicate, match="mine"):
        store.create_layer(layer_id="mine")
    with pytest.raises(Duplicate, match="one"):
        store.create_layer(names=["one"])
    with pytest.raises(InvalidRequest):
        store.create_layer(layer_id="../escape")
    assert [each.id for each in store.layers()] == ["mine"]


def test_a_name_that_no_record_can_hold_leaves_nothing(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        store.create_layer(names=["\udcff"])
    with pytest.raises(InvalidRequest, match="Unicode"):
        store.create_container(metadata="\udcff")
    assert (store.layers(), store.containers()) == ((), ())
    assert faults_of(store) == []


def test_a_layer_needs_a_parent_that_exists(store: Store) -> None:
    with pytest.raises(Unknown, match="missing"):
        store.create_layer("missing")


def test_no_layer_is_made_on_a_containers_own(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    with pytest.raises(InvalidRequest, match=container.id):
        store.create_layer(container.layer)


def test_an_image_keeps_its_big_data_with_sizes_and_digests(store: Store) -> None:
    image = store.create_image(
        image_id="mine", names=["one"], big_data={"sha256:config": b"{}", "manifest": b"[]"}, metadata="text"
    )
    assert image.big_data == ("sha256:config", "manifest")
    assert image.big_data_sizes == {"sha256:config": 2, "manifest": 2}
    assert image.digest == digest_of(b"[]")
    assert store.big_data(image, "sha256:config") == b"{}"
    assert store.images_by_digest(digest_of(b"[]")) == (image,)
    with pytest.raises(Unknown, match="other"):
        store.big_data(image, "other")
    assert store.metadata("one") == "text"


def test_big_data_can_be_added_and_replaced(store: Store, image: Image) -> None:
    store.set_big_data(image, "signature", b"1")
    store.set_big_data(image, "signature", b"22")
    changed = store.image(image.id)
    assert changed.big_data == ("manifest", "signature")
    assert changed.big_data_sizes["signature"] == 2
    assert store.big_data(changed, "signature") == b"22"
    layer = store.layer(image.layer or "")
    store.set_big_data(layer, "item", b"x")
    assert store.layer(layer.id).big_data == ("item",)
    container = store.create_container(image.id)
    store.set_big_data(container, "item", b"x")
    assert store.container(container.id).big_data_digests == {"item": digest_of(b"x")}
    with pytest.raises(InvalidRequest, match="empty"):
        store.set_big_data(container, "", b"x")


def test_an_image_without_a_digest_gets_that_of_its_first_manifest(store: Store) -> None:
    image = store.create_image(digest=None)
    store.set_big_data(image, "other", b"1")
    assert store.image(image.id).digest is None
    store.set_big_data(image, "manifest-new", b"2")
    store.set_big_data(image, "manifest", b"3")
    assert store.image(image.id).digest == digest_of(b"2")
    assert store.image(image.id).digests == (digest_of(b"2"), digest_of(b"3"))


def test_an_image_needs_a_top_layer_that_exists(store: Store) -> None:
    with pytest.raises(Unknown, match="missing"):
        store.create_image("missing")
    assert store.images() == ()


def test_names_move_from_one_holder_to_the_next(store: Store, image: Image) -> None:
    other = store.create_image(names=["other"])
    assert store.add_names(other.id, ["image", "third"]) == ("other", "image", "third")
    assert store.names(image.id) == ()
    assert store.set_names(other.id, ["last"]) == ("last",)
    assert store.remove_names("last", ["last"]) == ()
    assert store.image(other.id).names_history[0] == "last"
    assert store.image(other.id).names_history == ("last", "third", "image", "other")
    with pytest.raises(Unknown):
        store.names("last")


def test_names_and_metadata_work_for_every_kind(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    for identifier in (image.id, image.layer or "", container.id):
        store.set_names(identifier, [f"name of {identifier}"])
        store.set_metadata(f"name of {identifier}", "text")
        assert store.metadata(identifier) == "text"
    assert store.exists(f"name of {container.id}")
    assert store.exists(f"name of {container.id}", kinds=["container"])
    assert not store.exists(f"name of {container.id}", kinds=["image", "layer"])
    with pytest.raises(Unknown):
        store.set_metadata("missing", "")


def test_an_image_can_be_mounted_for_reading(store: Store, image: Image) -> None:
    with store.mounting(image.names[0]) as path:
        assert Path(path, "etc/name").read_bytes() == b"top\n"


def test_differences_and_sizes_are_those_of_the_layer(store: Store, image: Image) -> None:
    assert [str(change) for change in store.changes(image.layer or "")] == ["Modify /etc", "Modify /etc/name"]
    assert store.diff_size(image.layer or "") == 4
    with store.diff(image.layer or "") as stream:
        again = store.import_layer(io.BytesIO(stream.read()), store.layer(image.layer or "").parent)
    assert list(store.changes(again.id, image.layer)) == []
    top = store.layer(image.layer or "")
    base = store.layer(top.parent or "")
    assert store.image_size(image.id) == (top.diff_size or 0) + (base.diff_size or 0) + 2


def test_a_container_shows_its_changes(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    with store.mounting(container.id) as path:
        Path(path, "new").write_bytes(b"12345")
    assert [str(change) for change in store.changes(container.id)] == ["Add /new"]
    assert store.diff_size(container.id) == 5
    assert store.container_size(container.id) == 5
    assert store.disk_usage(container.id).inodes > 0


def test_a_tar_can_be_applied_to_a_layer_that_exists(store: Store) -> None:
    layer = store.create_layer()
    assert store.apply_diff(layer.id, io.BytesIO(gzip.compress(TAR))) == len(b"content\n")
    assert store.layer(layer.id).diff_digest == digest_of(TAR)
    assert os.listdir(os.path.join(store.run_root, "vfs-locks")) == []


def test_a_store_opened_for_reading_refuses_to_be_written(
    open_here: OpenStore, store: Store, image: Image
) -> None:
    with open_here(read_only=True) as reader:
        assert reader.images() == (image,)
        assert reader.has_image("image")
        for refused in (
            reader.create_layer,
            reader.create_image,
            reader.create_container,
            reader.wipe,
            lambda: reader.import_layer(io.BytesIO(TAR)),
            lambda: reader.delete_image("image"),
            lambda: reader.mount("image"),
            lambda: reader.set_names("image", []),
        ):
            with pytest.raises(StoreReadOnly):
                refused()
    assert store.images() == (image,)


def test_a_store_of_somebody_else_is_refused_in_our_own_words(store: Store, image: Image) -> None:
    """In a process that is not root any more."""
    os.chmod(store.root, 0o711)
    script = """if True:
        import os, sys
        from hostspec.errors import DriverFailed, StoreReadOnly
        from hostspec.store import open_store
        root, run_root, what = sys.argv[1:]
        store = open_store(root=root, run_root=run_root, driver="vfs")
        os.setresuid(65534, 65534, 65534)
        try:
            store.images() if what == "read" else store.create_image()
        except (DriverFailed, StoreReadOnly) as error:
            print(type(error).__name__, error)
    """
    for what, expected in (("read", "DriverFailed"), ("write", "StoreReadOnly")):
        words = [sys.executable, "-c", script, store.root, store.run_root, what]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "ModuleNotFoundError" in done.stderr:
            require_or_skip("readable-modules", "hostspec lies where other users may not read it")
        assert done.stdout.startswith(expected), done.stderr
        assert "Permission denied" in done.stdout
    assert store.images() == (image,)


def test_another_driver_is_told_whose_the_store_is(open_here: OpenStore, store: Store, image: Image) -> None:
    del image
    with pytest.raises(InvalidRequest, match=r"layers\.json.*vfs|vfs.*layers\.json") as caught:
        open_here(driver="overlay")
    assert "root" in caught.value.reason
    assert open_store(root=store.root, run_root=store.run_root).driver_name == "vfs"


def test_a_store_of_several_drivers_wants_one_named(tmp_path: Path) -> None:
    for driver in ("vfs", "other"):
        (tmp_path / f"{driver}-layers").mkdir()
        (tmp_path / f"{driver}-layers/layers.json").write_text('[{"id":"a"}]')
    with pytest.raises(InvalidRequest, match="several"):
        open_store(root=str(tmp_path), run_root=str(tmp_path / "run"))
    assert open_store(root=str(tmp_path), run_root=str(tmp_path / "run"), driver="vfs").has_layer("a")


def test_a_new_store_gets_the_best_driver_that_works(tmp_path: Path) -> None:
    chosen = open_store(root=str(tmp_path / "graph"), run_root=str(tmp_path / "run")).driver_name
    assert chosen
    assert not (tmp_path / "graph").exists()


def test_a_new_store_gets_a_driver_that_other_clients_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site/another-1.dist-info"
    installed.mkdir(parents=True)
    equals = [f"another_{each.name} = {each.value}" for each in announced(ENTRY_POINT_GROUP)]
    (installed / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINT_GROUP}]", *equals]))
    monkeypatch.syspath_prepend(str(installed.parent))
    usable = {each.name for each in installed_drivers()}
    assert {"vfs", "another_vfs"} <= usable
    chosen = open_store(root=str(tmp_path / "graph"), run_root=str(tmp_path / "run")).driver_name
    assert not chosen.startswith("another")


def test_a_driver_that_nobody_installed_is_named(tmp_path: Path) -> None:
    store = open_store(root=str(tmp_path), run_root=str(tmp_path / "run"), driver="strange")
    assert store.layers() == ()
    with pytest.raises(DriverNotInstalled, match="strange"):
        store.create_layer()


@pytest.mark.parametrize("option", ["size", "=1", "overlay.mountopt=nodev", "vfs.=1"])
def test_an_option_that_is_none_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(InvalidRequest):
        open_store(root=str(tmp_path), run_root=str(tmp_path / "run"), driver="vfs", options=[option])


def test_options_may_carry_the_drivers_name(tmp_path: Path) -> None:
    store = open_store(
        root=str(tmp_path),
        run_root=str(tmp_path / "run"),
        driver="vfs",
        options=["vfs.ignore_chown_errors=true", ".b=2", "c=3=4"],
    )
    assert store.driver_options == (("ignore_chown_errors", "true"), ("b", "2"), ("c", "3=4"))


def test_wiping_leaves_nothing(store: Store, image: Image) -> None:
    store.create_container(image.id, idmap=IdMap.parse([MAP]))
    container = store.create_container(image.id)
    store.mount(container.id)
    store.wipe()
    assert (store.layers(), store.images(), store.containers()) == ((), (), ())
    assert list(store.driver.list_layers()) == []
    assert store.mapped_copies() == []
    assert faults_of(store) == []
    assert len(Path(store.root, "storage.lock").read_bytes()) == 64


def test_threads_of_one_process_share_a_store(store: Store) -> None:
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for turn in range(5):
                layer = store.import_layer(io.BytesIO(TAR), names=[f"{number}-{turn}"])
                with store.mounting(layer.id) as path:
                    assert os.path.exists(os.path.join(path, "file"))
                if turn % 2:
                    store.delete_layer(layer.id)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(store.layers()) == 12
    assert sorted(store.driver.list_layers()) == sorted(layer.id for layer in store.layers())


def test_who_loses_the_race_for_an_id_does_no_harm_to_the_winner(store: Store, open_here: OpenStore) -> None:
    class Racing(io.BytesIO):
        """While it is read, somebody else makes a layer of the same ID."""

        def read(self, size: int | None = -1, /) -> bytes:
            with open_here() as other:
                if not other.has_layer("same"):
                    other.import_layer(io.BytesIO(TAR), layer_id="same", names=["winner"])
            return super().read(size)

    with pytest.raises(Duplicate):
        store.import_layer(Racing(TAR), layer_id="same")
    assert store.layer("same").names == ("winner",)
    assert faults_of(store) == []


def test_threads_that_want_the_same_id_get_one_layer(store: Store) -> None:
    refused: list[str] = []

    def run() -> None:
        try:
            store.import_layer(io.BytesIO(TAR), layer_id="same")
        except Duplicate as error:
            refused.append(error.name)

    for _ in range(5):
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused == ["same"] * 3
        assert faults_of(store) == []
        store.delete_layer("same")
        refused.clear()
