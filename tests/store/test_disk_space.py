"""What a store says that it occupies is what the file system says."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.idmap import IdMap
from hostspec.kernel.filesystems import sync_filesystem
from hostspec.observers import Operation
from hostspec.store import Store, open_store
from hostspec.store.upkeep.disk_space import LayersSpace
from hostspec.testing.requirements import require_or_skip
from tests.peers.clients import require_program
from tests.store.tars import MAP, OTHER_MAP, tar_of

MAPPED = IdMap.parse([MAP])
ONE_PERCENT = 0.01
EXTENT = re.compile(r" *\d+: +\d+\.\. +\d+: +(\d+)\.\. +(\d+): ")
FILES = {f"file-{number}": os.urandom(200_000) for number in range(20)}
PLACES = ["overlay on ext4", "vfs on ext4", "vfs on xfs", "overlay on xfs", "btrfs on btrfs"]


@pytest.fixture(params=PLACES)
def empty_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of each driver on each file system."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    driver, _, filesystem = request.param.partition(" on ")
    directory = request.getfixturevalue(f"{filesystem}_directory")
    with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=driver) as opened:
        try:
            _ = opened.driver.capabilities
        except DriverUnavailable as error:
            require_or_skip(driver, error.reason)
        yield opened
        opened.wipe()


@pytest.fixture
def store(empty_store: Store) -> Store:
    """A store with an image, two mapped copies of it, and a container on one that has changed a file."""
    layer = empty_store.import_layer(io.BytesIO(tar_of(FILES, uid=10, gid=20)))
    empty_store.create_image(layer.id, names=["image"])
    empty_store.create_container("image", names=["used"], idmap=MAPPED, strategy="template")
    empty_store.warm("image", IdMap.parse([OTHER_MAP]), strategy="template")
    with empty_store.mounting("used") as root, open(f"{root}/file-0", "wb") as file:
        file.write(os.urandom(300_000))
    settle(empty_store)
    return empty_store


def rows_of(store: Store) -> dict[str, LayersSpace]:
    return {row.kind: row for row in store.disk_space().rows}


def test_layers_are_told_apart_by_what_they_are_for(store: Store) -> None:
    rows = rows_of(store)
    assert {kind: (row.layers, row.unused) for kind, row in rows.items()} == {
        "images": (1, 1),
        "mapped copies": (2, 1),
        "containers": (1, 0),
        "others": (0, 0),
    }
    assert rows["containers"].exclusive_bytes >= 300_000
    for row in rows.values():
        assert row.unused_bytes <= row.exclusive_bytes


def test_the_whole_is_what_the_file_system_says(store: Store) -> None:
    space = store.disk_space()
    if store.driver_name == "btrfs":
        exclusive, shared = btrfs_du(store.driver.home)
        assert space.exclusive_bytes == pytest.approx(exclusive, rel=ONE_PERCENT, abs=65536)
        assert space.shared_bytes == pytest.approx(shared, rel=ONE_PERCENT)
    assert space.total_bytes == pytest.approx(occupied(store), rel=ONE_PERCENT)


def test_removing_unused_copies_frees_what_was_said(store: Store) -> None:
    said = rows_of(store)["mapped copies"].unused_bytes
    assert {each.usage.exclusive_bytes for each in store.mapped_copies() if not each.containers} == {said}
    before = occupied(store)
    store.remove_unused_copies(0)
    # A directory of the driver's may be a block smaller then.
    assert before - occupied(store) == pytest.approx(said, rel=ONE_PERCENT, abs=8192)
    assert rows_of(store)["mapped copies"].unused == 0


def test_removing_an_image_frees_what_was_said_though_its_layers_share_blocks(empty_store: Store) -> None:
    below = empty_store.import_layer(io.BytesIO(tar_of(FILES)))
    above = empty_store.import_layer(io.BytesIO(tar_of({"more": os.urandom(500_000)})), below.id)
    empty_store.create_image(above.id, names=["image"])
    other = empty_store.import_layer(io.BytesIO(tar_of({"other": os.urandom(500_000)})), below.id)
    empty_store.create_image(other.id, names=["other"])
    settle(empty_store)
    both = rows_of(empty_store)["images"]
    assert both.exclusive_bytes == pytest.approx(occupied(empty_store), rel=ONE_PERCENT, abs=65536)
    assert both.unused_bytes == both.exclusive_bytes

    empty_store.create_container("other", names=["used"])
    assert rows_of(empty_store)["images"].unused_bytes < both.exclusive_bytes / 2
    empty_store.delete_container("used")
    before = occupied(empty_store)
    for name in ("image", "other"):
        empty_store.delete_image(name)
    settle(empty_store)
    assert before - occupied(empty_store) == pytest.approx(both.exclusive_bytes, rel=ONE_PERCENT, abs=65536)


def settle(store: Store) -> None:
    """Delete what the making of copies left, and have everything written where it is going to be."""
    store.driver.reclaim()
    sync_filesystem(store.driver.home)


def occupied(store: Store) -> int:
    """Return the bytes of a store's layers, shared ones once, by programs that know nothing of layers."""
    if store.driver_name == "btrfs":
        return sum(btrfs_du(store.driver.home))
    du = ("du", "--one-file-system", "--summarize", "--block-size=1", store.driver.home)
    if store.disk_space().shared_bytes == 0:
        return int(output_of(*du).split()[0])
    files = [
        os.path.join(directory, name)
        for directory, _, names in os.walk(store.driver.home)
        for name in names
        if os.path.isfile(os.path.join(directory, name)) and not os.path.islink(os.path.join(directory, name))
    ]
    require_program("filefrag", package="e2fsprogs")
    blocks: set[int] = set()
    for line in output_of("filefrag", "-v", "-b4096", *files).splitlines():
        if found := EXTENT.match(line):
            blocks.update(range(int(found[1]), int(found[2]) + 1))
    return 4096 * len(blocks)


def btrfs_du(directory: str) -> tuple[int, int]:
    """Return exclusive and set-shared bytes."""
    text = output_of("btrfs", "filesystem", "du", "--summarize", "--raw", directory)
    _, exclusive, shared, _ = text.splitlines()[-1].split(maxsplit=3)
    return int(exclusive), int(shared)


def output_of(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_layer_that_is_removed_while_the_store_is_measured_does_not_count(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    root, run_root = str(tmp_path / "graph"), str(tmp_path / "run")
    doomed: list[str] = []

    class Deleting:
        def started(self, operation: Operation) -> None:
            if operation.name == "disk_usage" and doomed:
                with open_store(root=root, run_root=run_root, driver="vfs") as other:
                    other.delete_layer(doomed.pop())

        def finished(self, operation: Operation, error: BaseException | None) -> None: ...

    with open_store(root=root, run_root=run_root, driver="vfs", observers=[Deleting()]) as measured:
        first = measured.create_layer()
        doomed.append(measured.create_layer().id)
        others = rows_of(measured)["others"]
        assert others.layers == 1
        assert [layer.id for layer in measured.layers()] == [first.id]


@pytest.mark.parametrize("empty_store", ["vfs on ext4"], indirect=True)
def test_a_layer_that_the_driver_has_lost_occupies_nothing(empty_store: Store) -> None:
    lost = empty_store.import_layer(io.BytesIO(tar_of(FILES)))
    empty_store.driver.remove(lost.id)

    others = empty_store.disk_space().rows[-1]

    assert (others.layers, others.exclusive_bytes) == (0, 0)
