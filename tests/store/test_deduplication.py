from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.kernel.fiemap import Extent, extents
from hostspec.observers import Observer, Operation
from hostspec.store import Store, open_store
from tests.store.tars import tar_of

SIZE = 300_000
CONTENT = os.urandom(SIZE)
OTHER = os.urandom(SIZE)


def opened(directory: str, driver: str, *observers: Observer) -> Store:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    root, run_root = f"{directory}/graph", f"{directory}/run"
    return open_store(root=root, run_root=run_root, driver=driver, observers=observers)


@pytest.fixture(params=["vfs", "overlay"])
def store(request: pytest.FixtureRequest, xfs_directory: str) -> Iterator[Store]:
    with opened(xfs_directory, request.param) as store:
        yield store
        store.wipe()


def image_of(store: Store, files: dict[str, bytes | None]) -> Path:
    """Make an image of one layer, and return where the driver has its files."""
    layer = store.import_layer(io.BytesIO(tar_of(files)))
    store.create_image(layer.id)
    home = Path(store.driver.home)
    return home / "dir" / layer.id if store.driver_name == "vfs" else home / layer.id / "diff"


def blocks(path: Path) -> list[Extent]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return list(extents(file.fileno()))


@pytest.mark.parametrize("method", ["size", "crc", "sha256"])
def test_equal_files_share_their_blocks_afterwards(store: Store, method: str) -> None:
    one = image_of(store, {"file": CONTENT, "different": OTHER})
    two = image_of(store, {"d": None, "d/same": CONTENT, "small": b"x"})
    before = (two / "d/same").stat()
    assert blocks(one / "file") != blocks(two / "d/same")
    assert store.deduplicate(method) == SIZE
    shared = blocks(one / "file")
    assert shared == blocks(two / "d/same")
    assert all(is_shared for _, _, is_shared in shared)
    assert not any(is_shared for _, _, is_shared in blocks(one / "different"))
    assert ((one / "file").read_bytes(), (two / "d/same").read_bytes()) == (CONTENT, CONTENT)
    assert (one / "different").read_bytes() == OTHER
    assert (two / "d/same").stat().st_mtime_ns == before.st_mtime_ns
    assert not store.check()


def test_what_was_shared_before_counts_again(store: Store) -> None:
    image_of(store, {"one": CONTENT, "two": CONTENT, "three": CONTENT})
    assert store.deduplicate() == 2 * SIZE
    assert store.deduplicate() == 2 * SIZE


def test_hard_links_are_one_file(store: Store) -> None:
    tree = image_of(store, {"one": CONTENT})
    os.link(tree / "one", tree / "two")
    assert store.deduplicate() == 0


def test_files_of_containers_are_left_alone(store: Store) -> None:
    image_of(store, {"one": CONTENT})
    container = store.create_container()
    with store.mounting(container.id) as path:
        Path(path, "same").write_bytes(CONTENT)
        assert store.deduplicate() == 0


def test_an_unknown_method_is_refused(store: Store) -> None:
    image_of(store, {"one": CONTENT})
    with pytest.raises(InvalidRequest, match="size, crc, sha256"):
        store.deduplicate("md5")


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_without_reflinks_it_is_not_supported(ext4_directory: str, driver: str) -> None:
    with opened(ext4_directory, driver) as store:
        image_of(store, {"one": CONTENT, "two": CONTENT})
        with pytest.raises(OperationNotSupported, match="xfs and btrfs"):
            store.deduplicate()
        store.wipe()


def test_subvolumes_share_too(btrfs_directory: str) -> None:
    with opened(btrfs_directory, "btrfs") as store:
        for name in ("one", "two"):
            layer = store.import_layer(io.BytesIO(tar_of({name: CONTENT})))
            store.create_image(layer.id)
        assert store.deduplicate("crc") == SIZE
        one, two = (
            Path(store.driver.home, "subvolumes", layer.id, name)
            for layer, name in zip(store.layers(), ("one", "two"), strict=True)
        )
        assert blocks(one) == blocks(two)
        store.wipe()


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_what_is_removed_meanwhile_is_passed_over(xfs_directory: str, driver: str) -> None:
    doomed: list[str] = []

    class Deleting:
        def started(self, operation: Operation) -> None:
            if operation.name == "dedup" and doomed:
                with opened(xfs_directory, driver) as other:
                    other.delete_image(doomed.pop())

        def finished(self, operation: Operation, error: BaseException | None) -> None: ...

    with opened(xfs_directory, driver, Deleting()) as store:
        for _ in range(3):
            image_of(store, {"file": CONTENT})
        doomed.append(store.images()[1].id)
        assert store.deduplicate() == SIZE
        store.wipe()
