"""An image, a container under a map, one file changed, its diff: as if there were no map."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.idmap import IdMap
from hostspec.kernel.file_identity import making_files_as
from hostspec.store import Store, open_store
from hostspec.store.configuration.policy import Strategy
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.tars import tar_of

SEVERAL_RANGES = IdMap.parse(["0:100000:5", "5:300000:65531"], ["0:200000:65536"])
WHEN = 1_700_000_001_000_000_000  # nanoseconds since the epoch
BASE = tar_of({"etc": None, "etc/name": b"base\n", "etc/other": b"same", "a": b"short", "gone": b"x"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10, gid=20)


@pytest.fixture(params=["vfs", "overlay", "btrfs", "overlay with metacopy"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with an image of two layers, for each driver."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    driver = request.param.partition(" ")[0]
    options = ["overlay.mountopt=metacopy=on"] if "metacopy" in request.param else []
    directory = directory_for(driver, request)
    with ExitStack() as stack:
        opened = open_store(
            root=f"{directory}/graph", run_root=f"{directory}/run", driver=driver, options=options
        )
        try:
            _ = opened.driver.capabilities
        except DriverUnavailable as error:
            require_or_skip(driver, error.reason)
        stack.enter_context(opened)
        stack.callback(opened.wipe)
        base = opened.import_layer(io.BytesIO(BASE))
        opened.create_image(opened.import_layer(io.BytesIO(TOP), base.id).id, names=["image"])
        yield opened


def changed(store: Store, idmap: IdMap, strategy: Strategy) -> str:
    """Make a container, change it as a process in it would, and return its ID."""
    container = store.create_container("image", idmap=idmap, strategy=strategy)

    def owned_by(path: str, uid: int, gid: int) -> None:
        os.chown(path, *(idmap.to_host(uid, gid) if idmap else (uid, gid)))

    with store.mounting(container.id) as root:
        with open(f"{root}/etc/name", "ab") as file:
            file.write(b"and more\n")
        with making_files_as(*(idmap.root() if idmap else (0, 0))):
            os.mkdir(f"{root}/new")
            with open(f"{root}/new/file", "wb") as file:
                file.write(b"new")
        owned_by(f"{root}/new", 1, 2)
        owned_by(f"{root}/new/file", 30, 40)
        os.unlink(f"{root}/gone")
        for path in ("etc/name", "new/file", "new", "etc", "."):
            os.utime(f"{root}/{path}", ns=(WHEN, WHEN))
    return container.id


def diff_of(store: Store, reference: str) -> bytes:
    with store.diff(reference) as stream:
        return stream.read()


@pytest.mark.parametrize("strategy", ["auto", "shift", "template", "copy"])
def test_the_diff_of_a_mapped_container_is_that_of_an_unmapped_one(store: Store, strategy: Strategy) -> None:
    if strategy == "shift" and not store.driver.supports_shifting(SEVERAL_RANGES).possible:
        require_or_skip("shifting", store.driver.supports_shifting(SEVERAL_RANGES).reason)
    plain = changed(store, IdMap(), "auto")
    mapped = changed(store, SEVERAL_RANGES, strategy)
    expected, found = diff_of(store, plain), diff_of(store, mapped)
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        owners = {member.name.rstrip("/"): (member.uid, member.gid) for member in tar}
    assert owners["etc/name"] == (10, 20)
    assert (owners["new"], owners["new/file"]) == ((1, 2), (30, 40))
    assert hashlib.sha256(found).hexdigest() == hashlib.sha256(expected).hexdigest()
    assert [str(each) for each in store.changes(mapped)] == [str(each) for each in store.changes(plain)]
    assert store.diff_size(mapped) == store.diff_size(plain)


@pytest.mark.parametrize("strategy", ["auto", "template", "copy"])
def test_it_can_be_compared_with_any_other_layer(store: Store, strategy: Strategy) -> None:
    """Which only the fallbacks do, for they must see the whole tree under one map."""
    plain = changed(store, IdMap(), "auto")
    mapped = changed(store, SEVERAL_RANGES, strategy)
    assert [str(each) for each in store.changes(mapped, plain)] == []
    top = store.image("image").layer
    assert top is not None
    base = store.layer(top).parent
    assert [str(each) for each in store.changes(mapped, base)] == [
        str(each) for each in store.changes(plain, base)
    ]
    assert store.diff_size(mapped, base) == store.diff_size(plain, base)
    with store.diff(mapped, base) as found, store.diff(plain, base) as expected:
        assert found.read() == expected.read()


@pytest.mark.parametrize("strategy", ["auto", "template", "copy"])
def test_the_diff_makes_the_same_image_again(store: Store, strategy: Strategy) -> None:
    mapped = changed(store, SEVERAL_RANGES, strategy)
    layer = store.import_layer(io.BytesIO(diff_of(store, mapped)), store.image("image").layer)
    with store.mounting(layer.id) as root:
        found = os.stat(f"{root}/new/file")
        assert (found.st_uid, found.st_gid) == (30, 40)
        assert not os.path.exists(f"{root}/gone")


@pytest.mark.parametrize("strategy", ["auto", "template", "copy"])
@pytest.mark.parametrize("idmap", [IdMap(), SEVERAL_RANGES], ids=["plain", "mapped"])
def test_another_owner_of_the_root_directory_is_a_change(
    store: Store, strategy: Strategy, idmap: IdMap
) -> None:
    container = store.create_container("image", idmap=idmap, strategy=strategy)
    with store.mounting(container.id) as root:
        os.chown(root, *(idmap.to_host(7, 8) if idmap else (7, 8)))
    assert [str(each) for each in store.changes(container.id)] == ["Modify /"]


@pytest.mark.parametrize("strategy", ["auto", "template", "copy"])
def test_a_tar_is_unpacked_into_a_mapped_container_as_into_any_other(
    store: Store, strategy: Strategy
) -> None:
    content = tar_of(
        {"etc/name": b"unpacked\n", "more": None, "more/file": b"x", ".wh.gone": b""}, uid=30, gid=40
    )
    plain = store.create_container("image")
    mapped = store.create_container("image", idmap=SEVERAL_RANGES, strategy=strategy)
    for container in (plain, mapped):
        store.apply_diff(container.layer, io.BytesIO(content))
    with store.mounting(mapped.id) as root:
        for path in ("etc/name", "more", "more/file"):
            found = os.stat(f"{root}/{path}")
            assert (found.st_uid, found.st_gid) == SEVERAL_RANGES.to_host(30, 40)
        assert not os.path.exists(f"{root}/gone")
    assert diff_of(store, mapped.id) == content
    for container in (plain, mapped):  # so that they are packed anew
        os.unlink(f"{store.root}/{store.driver_name}-layers/{container.layer}.tar-split.gz")
    assert [str(each) for each in store.changes(mapped.id)] == [str(each) for each in store.changes(plain.id)]
    with tarfile.open(fileobj=io.BytesIO(diff_of(store, mapped.id))) as tar:
        owners = {member.name.rstrip("/"): (member.uid, member.gid) for member in tar}
    assert {owners[each] for each in ("etc/name", "more", "more/file")} == {(30, 40)}
