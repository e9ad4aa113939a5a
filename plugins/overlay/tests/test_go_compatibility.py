"""Debian's ``containers-storage``, the Go library itself, on layers that we made, and we on its layers.

The records are the store's business and are written by hand here, as little as it takes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import unmount_all
from hostspec.testing.requirements import require_or_skip
from hostspec.values import LayerRef, MountOptions

from .conftest import AddLayer, OpenOverlay

A, B, C = (letter * 64 for letter in "abc")
MAPPED = IdMap.parse(["0:200000:65536"])

Go = Callable[..., str]


@pytest.fixture
def go(ext4_directory: str) -> Go:
    """Runs ``containers-storage`` on the store at ``ext4_directory``, and returns what it prints."""
    if shutil.which("containers-storage") is None:
        require_or_skip("containers-storage", "is not installed; Debian's package has the same name")

    def run(*arguments: str, content: bytes = b"") -> str:
        command = ["containers-storage", "-g", ext4_directory, "-R", f"{ext4_directory}/run", "-s", "overlay"]
        done = subprocess.run([*command, *arguments], input=content, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    return run


def record(directory: str, *layers: tuple[str, str | None, IdMap]) -> None:
    """Write the records of layers."""
    os.makedirs(f"{directory}/overlay-layers", exist_ok=True)
    created = datetime.now(tz=UTC).isoformat()
    records = []
    for layer_id, parent, idmap in layers:
        ranges = [{"container_id": each[0], "host_id": each[1], "size": each[2]} for each in idmap.uids]
        parts = {"id": layer_id, "parent": parent, "created": created, "uidmap": ranges, "gidmap": ranges}
        records.append({name: value for name, value in parts.items() if value})
    with open(f"{directory}/overlay-layers/layers.json", "w", encoding="utf-8") as file:
        json.dump(records, file)


def contents(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def tar_of(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture
def driver(ext4_directory: str, open_overlay: OpenOverlay) -> GraphDriver:
    return open_overlay(ext4_directory)


def test_it_mounts_our_chain_and_tells_its_changes(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    base = add_layer(driver, A, None, {"kept": "kept", "changed": "old", "deleted": "x"})
    driver.create(B, base)
    with driver.mounted(B, read_only=False) as root:
        os.unlink(f"{root}/deleted")
        with open(f"{root}/changed", "w", encoding="utf-8") as file:
            file.write("newer")
    driver.commit(B)
    record(ext4_directory, (A, None, IdMap()), (B, A, IdMap()))

    merged = go("mount", B).strip()

    assert merged == f"{driver.home}/{B}/merged"
    assert sorted(os.listdir(merged)) == ["changed", "kept"]
    assert contents(f"{merged}/changed") == "newer"
    assert driver.mount(B) == merged
    assert sorted(json.loads(go("changes", "-j", B, A)), key=str) == sorted(
        [{"Path": "/changed", "Kind": 0}, {"Path": "/deleted", "Kind": 2}], key=str
    )
    go("unmount", B)
    assert not os.path.exists(f"{merged}/kept")


def test_it_mounts_a_hidden_child_with_its_ownership_pass(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    base = add_layer(driver, A, None, {"base": "from the base"})
    template = add_layer(driver, B, base, {"own": "from the template"})
    driver.create_from_template(C, template, base)
    driver.update_idmap(C, IdMap(), MAPPED)
    driver.commit(C)
    record(ext4_directory, (A, None, IdMap()), (B, A, IdMap()), (C, A, MAPPED))

    merged = go("mount", C).strip()

    for name in ("base", "own"):
        assert contents(f"{merged}/{name}").startswith("from the")
        assert os.stat(f"{merged}/{name}").st_uid == 200_000
    go("unmount", C)
    # Version 1.43 takes the root away from its owner as it mounts.
    with driver.mounted(C) as root:
        assert os.stat(root).st_uid == 200_000


def test_it_mounts_stubs_that_were_written_without_a_mount(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer, go: Go
) -> None:
    driver = open_overlay(ext4_directory, ("mountopt", "metacopy=on"))
    base = add_layer(driver, A, None, {"base": "from the base", "usr/written": "from the base"})
    template = add_layer(driver, B, base, {"own": "from the template"})
    driver.create_from_template(C, template, base)
    driver.update_idmap(C, IdMap(), MAPPED)
    driver.commit(C)
    record(ext4_directory, (A, None, IdMap()), (B, A, IdMap()), (C, A, MAPPED))
    assert os.stat(f"{driver.home}/{C}/diff1/own").st_blocks == 0

    merged = go("--storage-opt", "overlay.mountopt=metacopy=on", "mount", C).strip()

    for name in ("base", "own", "usr/written"):
        assert contents(f"{merged}/{name}").startswith("from the")
        assert os.stat(f"{merged}/{name}").st_uid == 200_000
    with open(f"{merged}/usr/written", "a", encoding="utf-8") as file:
        file.write(", and written to")
    assert contents(f"{merged}/usr/written") == "from the base, and written to"
    go("unmount", C)
    assert os.listdir(f"{driver.home}/{C}/diff/usr") == ["written"]


def test_it_makes_layers_on_ours_and_removes_them(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    add_layer(driver, A, None, {"file": "x"})
    record(ext4_directory, (A, None, IdMap()))

    child = go("create-layer", A).strip()
    assert contents(f"{driver.home}/{child}/lower") == f"l/{contents(f'{driver.home}/{A}/link')}"
    go("delete-layer", child)

    assert driver.list_layers() == [A]


def test_it_removes_ours(ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go) -> None:
    base = add_layer(driver, A)
    add_layer(driver, B, base)
    record(ext4_directory, (A, None, IdMap()), (B, A, IdMap()))

    go("delete-layer", B)

    assert driver.list_layers() == [A]
    assert len(os.listdir(f"{driver.home}/l")) == 1


def test_we_mount_its_layers_and_make_ours_on_them(driver: GraphDriver, add_layer: AddLayer, go: Go) -> None:
    base = go("create-layer").strip()
    go("apply-diff", base, content=tar_of({"file": b"from there", "deleted": b""}))
    child = go("create-layer", base).strip()
    go("apply-diff", child, content=tar_of({".wh.deleted": b"", "more": b"more"}))
    assert sorted(driver.list_layers()) == sorted([base, child])

    add_layer(driver, A, LayerRef(child), {"own": "x"})

    with driver.mounted(A) as root:
        assert sorted(os.listdir(root)) == ["file", "more", "own"]
        assert contents(f"{root}/file") == "from there"
    assert [str(change) for change in driver.changes(LayerRef(child), LayerRef(base))] == [
        "Delete /deleted",
        "Add /more",
    ]


def test_a_container_that_it_shifted_is_shifted_by_us(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    add_layer(driver, A, None, {"file": "x"})
    record(ext4_directory, (A, None, IdMap()))
    ranges = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    go("create-image", "-n", "image", A)
    go("create-container", "-n", "container", *ranges, "image")
    merged = go("mount", "container").strip()
    os.chmod(f"{merged}/file", 0o600)
    go("unmount", "container")
    layer_id = os.path.basename(os.path.dirname(merged))

    path = driver.mount(layer_id, MountOptions(idmap=MAPPED))
    owners = {os.stat(path).st_uid, os.stat(f"{path}/file").st_uid}
    driver.unmount(layer_id, path)

    assert owners == {200_000}
    assert [str(each) for each in driver.changes(LayerRef(layer_id, MAPPED), LayerRef(A))] == ["Modify /file"]


def test_it_is_not_disturbed_by_our_working_area(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    add_layer(driver, A, None, {"file": "x"})
    record(ext4_directory, (A, None, IdMap()))
    driver.create(B, LayerRef(A))

    assert go("layers").split() == [A]
    go("mount", A)
    go("unmount", A)
    driver.commit(B)

    assert sorted(driver.list_layers()) == [A, B]


def test_a_mount_of_ours_is_still_seen_when_it_has_opened_the_store(
    ext4_directory: str, driver: GraphDriver, add_layer: AddLayer, go: Go
) -> None:
    add_layer(driver, A, None, {"file": "x"})
    record(ext4_directory, (A, None, IdMap()))
    ours = driver.mount(A)

    go("layers")
    assert os.listdir(ours) == ["file"]

    driver.unmount(A, ours)
    assert not [point for point in mount_points(driver.home) if point != driver.home]


@pytest.fixture(autouse=True)
def _unmounted(ext4_directory: str) -> object:
    yield
    # The Go library binds its home on itself and leaves it so.
    unmount_all(ext4_directory)
