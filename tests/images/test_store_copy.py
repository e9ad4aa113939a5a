from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostspec.errors import Duplicate, HostspecError, InvalidArchive, StoreReadOnly, Unknown
from hostspec.images.exporting import export_images
from hostspec.images.importing import import_image
from hostspec.images.store_copy import copy_image
from hostspec.kernel.mountinfo import mount_points
from hostspec.store import Image, Store, open_store
from tests.images.layouts import Layout
from tests.scratch_filesystems import directory_for
from tests.store.conftest import OpenStore
from tests.store.tars import digest_of, tar_of

LAYERS = (
    tar_of({"etc": None, "etc/name": b"base\n", "etc/gone": b""}),
    tar_of({"etc/name": b"top\n", "etc/.wh.gone": b""}, uid=10),
    tar_of({"usr": None, "usr/file": b"x" * 5000}, gid=20),
)
SCRIPT = """
import sys
from hostspec.images.store_copy import copy_image
from hostspec.store import open_store
graph, run, target_graph, target_run, driver, image = sys.argv[1:]
with open_store(root=graph, run_root=run) as source:
    with open_store(root=target_graph, run_root=target_run, driver=driver) as target:
        print("ready", flush=True)
        copy_image(source, image, target)
"""


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    layout = Layout(tmp_path / "layout")
    layout.image(*LAYERS)
    return import_image(store, f"oci:{layout.path}", names=["localhost/mine:latest", "second"])


@pytest.fixture(params=["vfs", "overlay", "btrfs"])
def target(request: pytest.FixtureRequest) -> Iterator[Store]:
    directory = directory_for(request.param, request)
    with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=request.param) as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with open_store(root=f"{tmp_path}/other", run_root=f"{tmp_path}/other-run", driver="vfs") as opened:
        yield opened


def contents(store: Store, image: Image) -> dict[str, tuple[int, int, str]]:
    found = {}
    with store.mounting(image.id, read_only=True) as root:
        for path in sorted(Path(root).rglob("*")):
            status = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(root))] = (status.st_uid, status.st_gid, digest)
    return found


def test_a_copy_is_the_same_image(store: Store, image: Image, target: Store, tmp_path: Path) -> None:
    copied = copy_image(store, image.id, target)

    assert (copied.id, copied.digest, copied.created) == (image.id, image.digest, image.created)
    assert set(copied.names) == set(image.names)
    assert copied.metadata == image.metadata
    assert copied.big_data == image.big_data
    assert copied.big_data_digests == image.big_data_digests
    assert target.big_data(copied, "manifest") == store.big_data(image, "manifest")
    assert [layer.diff_digest for layer in target.layers()] == [digest_of(layer) for layer in LAYERS]
    assert contents(target, copied) == contents(store, image)
    (written,) = export_images(target, [copied.id], f"oci:{tmp_path}/out")
    assert written.digest == image.digest


def test_copying_again_changes_nothing_but_names(store: Store, image: Image, other: Store) -> None:
    first = copy_image(store, image.id, other, names=["first"])
    second = copy_image(store, "second", other, names=["second"])

    assert first.layer == second.layer
    assert set(second.names) == {"localhost/first:latest", "localhost/second:latest"}
    assert len(other.layers()) == len(LAYERS)


def test_a_name_goes_to_the_image_that_came_last(store: Store, image: Image, other: Store) -> None:
    name = "localhost/second:latest"
    older = other.create_image(None, names=[name])

    copy_image(store, image.id, other)

    assert other.image(name).id == image.id
    assert other.image(older.id).names == ()


def test_layers_that_the_target_has_are_used_again(store: Store, image: Image, other: Store) -> None:
    base = other.import_layer(io.BytesIO(LAYERS[0]), layer_id="own-id")

    copy_image(store, image.id, other)

    assert len(other.layers()) == len(LAYERS)
    assert other.layers()[1].parent == base.id


def test_a_layer_that_was_never_imported_is_copied_as_it_is(store: Store, other: Store) -> None:
    base = store.import_layer(io.BytesIO(LAYERS[0]))
    layer = store.create_layer(base.id)
    with store.mounting(layer.id) as root:
        Path(root, "etc/new").write_bytes(b"new")
    image = store.create_image(layer.id)

    assert contents(other, copy_image(store, image.id, other)) == contents(store, image)
    copy_image(store, image.id, other)
    assert len(other.layers()) == 2


def test_an_image_without_layers_is_copied(store: Store, other: Store) -> None:
    image = store.create_image(None, metadata="text", big_data={"key": b"value"})

    copied = copy_image(store, image.id, other)

    assert copied.metadata == "text"
    assert other.big_data(copied, "key") == b"value"


def test_a_damaged_layer_is_refused_and_leaves_nothing(store: Store, image: Image, other: Store) -> None:
    with store.mounting(image.layer or "") as root:
        Path(root, "usr/file").write_bytes(b"y" * 5000)

    with pytest.raises(InvalidArchive):
        copy_image(store, image.id, other)

    assert (*other.layers(), *other.images()) == ()
    assert list(other.driver.list_layers()) == []


def test_layers_that_were_there_survive_a_failed_copy(store: Store, image: Image, other: Store) -> None:
    base = other.import_layer(io.BytesIO(LAYERS[0]))
    store.set_names(image.id, [])
    with store.mounting(image.layer or "") as root:
        Path(root, "usr/file").unlink()

    with pytest.raises(HostspecError):
        copy_image(store, image.id, other)

    assert [layer.id for layer in other.layers()] == [base.id]


def test_another_image_of_the_same_id_is_not_overwritten(store: Store, image: Image, other: Store) -> None:
    layer = other.import_layer(io.BytesIO(LAYERS[2]))
    present = other.create_image(layer.id, image_id=image.id)

    with pytest.raises(Duplicate):
        copy_image(store, image.id, other)

    assert other.image(image.id) == present


def test_the_source_may_be_open_for_reading_only(
    open_here: OpenStore, image: Image, other: Store, store: Store
) -> None:
    with open_here(read_only=True) as source:
        assert contents(other, copy_image(source, image.id, other)) == contents(store, image)
        with pytest.raises(StoreReadOnly):
            copy_image(other, image.id, source, names=["third"])


def test_an_unknown_image_is_said_to_be_unknown(store: Store, other: Store) -> None:
    with pytest.raises(Unknown, match="nothing"):
        copy_image(store, "nothing", other)


def test_threads_copy_the_same_image_once(store: Store, image: Image, other: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        copies = list(
            pool.map(lambda number: copy_image(store, image.id, other, names=[str(number)]), range(6))
        )

    assert {each.id for each in copies} == {image.id}
    assert len(other.layers()) == len(LAYERS)
    assert len(other.images()) == 1
    assert set(other.image(image.id).names) == {f"localhost/{number}:latest" for number in range(6)}


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_copy_that_is_killed_leaves_both_stores_whole(
    store: Store, tmp_path: Path, ext4_directory: str, driver: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.image(*(tar_of({f"file{number}": os.urandom(400_000)}) for number in range(6)))
    image = import_image(store, f"oci:{layout.path}", names=["mine"])
    before = (store.layers(), store.images(), contents(store, image))
    chance = random.Random(driver)  # noqa: S311 - repeatable
    killed = 0
    for attempt in range(6):
        graph, run = f"{ext4_directory}/graph{attempt}", f"{ext4_directory}/run{attempt}"
        words = (store.root, store.run_root, graph, run, driver, image.id)
        with subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stdout=subprocess.PIPE) as copying:
            assert copying.stdout is not None
            assert copying.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.01, 0.25))
            copying.send_signal(signal.SIGKILL)
        killed += copying.returncode == -signal.SIGKILL
        with open_store(root=graph, run_root=run, driver=driver) as target:
            assert_whole(target)
            assert contents(target, copy_image(store, image.id, target)) == before[2]
            assert len(target.layers()) == 6, "what had arrived was used"
            target.wipe()
            assert os.listdir(f"{graph}/{driver}/tempdirs") == []
    assert killed, "no copy was interrupted"
    assert (store.layers(), store.images(), contents(store, image)) == before
    assert mount_points(ext4_directory) == []


def test_a_copy_does_not_suffer_from_others_that_are_killed_at_the_same(
    store: Store, tmp_path: Path, ext4_directory: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.image(*(tar_of({f"file{number}": os.urandom(200_000)}) for number in range(6)))
    image = import_image(store, f"oci:{layout.path}", names=["mine"])
    chance = random.Random(1)  # noqa: S311 - repeatable
    for attempt in range(3):
        graph, run = f"{ext4_directory}/graph{attempt}", f"{ext4_directory}/run{attempt}"
        words = (store.root, store.run_root, graph, run, "vfs", image.id)
        with ExitStack() as running:
            copies = [
                running.enter_context(
                    subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stdout=subprocess.PIPE)
                )
                for _ in range(3)
            ]
            for doomed in copies[:2]:
                assert doomed.stdout is not None
                doomed.stdout.readline()
                time.sleep(chance.uniform(0, 0.15))
                doomed.kill()
            # Leaving the block closes the pipe, into which it may not have written yet.
            assert copies[2].stdout is not None
            copies[2].stdout.readline()
        assert copies[2].returncode == 0
        with open_store(root=graph, run_root=run, driver="vfs") as target:
            assert_whole(target)
            assert contents(target, target.image(image.id)) == contents(store, image)


def assert_whole(store: Store) -> None:
    """Everything that is recorded is there, and nothing else."""
    layers = store.layers()
    assert sorted(store.driver.list_layers()) == sorted(layer.id for layer in layers)
    for layer in layers:
        with store.diff(layer.id) as stream:
            assert digest_of(stream.read()) == layer.diff_digest
    for image in store.images():
        assert len(layers) == 6
        contents(store, image)
