from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from hostspec.errors import InvalidIdMap, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.store import Image, Store, open_store
from hostspec.store.user_namespaces import free_start, highest_id_in_accounts
from tests.granted_ids import granted_ids
from tests.store.tars import tar_of

FIRST = 2_000_000

Grant = Callable[[str], object]


@pytest.fixture
def grant(tmp_path: Path) -> Iterator[Grant]:
    """What writes /etc/subuid and /etc/subgid, for this test alone."""
    if os.geteuid() != 0:
        pytest.skip("only root may put other files in the place of these")
    file = tmp_path / "granted"
    with granted_ids(file, f"other:1000:1000\ncontainers:{FIRST}:5000\n"):
        yield file.write_text


@pytest.fixture
def store(tmp_path: Path, grant: Grant) -> Iterator[Store]:
    del grant
    with open_store(root=str(tmp_path / "graph"), run_root=str(tmp_path / "run"), driver="vfs") as found:
        yield found
        found.wipe()


def image_of(store: Store, *, uid: int = 0, passwd: bytes = b"") -> Image:
    tar = tar_of({"etc": None, "etc/passwd": passwd}, uid=uid)
    return store.create_image(store.import_layer(io.BytesIO(tar)).id)


def map_at(first: int, size: int) -> IdMap:
    return IdMap([(0, first, size)], [(0, first, size)])


def test_a_map_has_as_many_ids_as_the_images_files_need(store: Store) -> None:
    with store.automatic_idmap(image_of(store).id) as idmap:
        assert idmap == map_at(FIRST, 1024)
    with store.automatic_idmap(image_of(store, uid=3000).id) as idmap:
        assert idmap == map_at(FIRST, 3001)


def test_a_map_has_as_many_ids_as_the_images_accounts_need(store: Store) -> None:
    passwd = b"root:x:0:0::/:\nweb:x:4000:4001::/:\nnobody:x:65534:65534::/:\n"
    with store.automatic_idmap(image_of(store, passwd=passwd).id) as idmap:
        assert idmap == map_at(FIRST, 4002)


def test_an_image_that_needs_too_many_ids_is_refused(store: Store) -> None:
    image = image_of(store, uid=65536)
    with pytest.raises(InvalidRequest, match="needs 65537 IDs"), store.automatic_idmap(image.id):
        pass


def test_no_two_containers_have_an_id_in_common_until_none_is_left(store: Store) -> None:
    image = image_of(store).id
    starts = []
    for _ in range(4):
        with store.automatic_idmap(image) as idmap:
            store.create_container(image, idmap=idmap)
        starts.append(idmap.root()[0])
    assert starts == [FIRST + 1024 * number for number in range(4)]
    with pytest.raises(InvalidRequest, match="that are free"), store.automatic_idmap(image):
        pass


def test_ids_of_a_container_with_a_map_of_its_own_are_not_free(store: Store) -> None:
    image = image_of(store).id
    # In the middle, so that there is no room before it; and only UIDs.
    store.create_container(image, idmap=IdMap([(0, FIRST + 1000, 10)], [(0, FIRST, 10)]), squash=True)
    with store.automatic_idmap(image) as idmap:
        assert idmap.root() == (FIRST + 1010, FIRST + 10)


def test_a_free_range_for_which_there_is_a_copy_comes_first(store: Store) -> None:
    image = image_of(store).id
    store.create_container(image, container_id="first", idmap=map_at(FIRST, 1024), strategy="copy")
    with store.automatic_idmap(image) as idmap:
        store.create_container(image, container_id="second", idmap=idmap, strategy="copy")
    copies = len(store.mapped_copies())
    store.delete_container("second")
    store.delete_container("first")
    # Of those two the lower one; when that is taken, the other, and not a new one between them.
    for number in range(2):
        with store.automatic_idmap(image) as idmap:
            store.create_container(image, idmap=idmap, strategy="copy")
        assert idmap == map_at(FIRST + 1024 * number, 1024)
    assert len(store.mapped_copies()) == copies


def test_a_copy_whose_range_is_no_longer_granted_is_left_alone(store: Store, grant: Grant) -> None:
    image = image_of(store).id
    store.create_container(image, container_id="first", idmap=map_at(FIRST, 1024), strategy="copy")
    store.delete_container("first")
    grant("containers:3000000:2000\n")
    with store.automatic_idmap(image) as idmap:
        assert idmap == map_at(3_000_000, 1024)


def test_who_chooses_a_map_holds_the_lock_that_podman_takes(store: Store) -> None:
    with store.automatic_idmap(), open(f"{store.root}/userns.lock", "r+b") as file:
        refused = _refused(file)
    assert refused
    with open(f"{store.root}/userns.lock", "r+b") as file:
        assert not _refused(file)


def _refused(file: IO[bytes]) -> bool:
    """Tell whether the lock that the Go library takes on a file would have to wait."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def test_without_ids_for_containers_there_is_no_map(store: Store, grant: Grant) -> None:
    grant("other:1000:1000\n")
    with pytest.raises(InvalidIdMap, match="'containers'"), store.automatic_idmap():
        pass


def test_an_image_that_is_not_there_is_unknown(store: Store) -> None:
    with pytest.raises(Unknown), store.automatic_idmap("nowhere"):
        pass


@pytest.mark.parametrize(
    ("free", "size", "start"),
    [([], 1, None), ([(5, 6)], 1, 5), ([(5, 6)], 2, None), ([(0, 3), (10, 20)], 4, 10)],
)
def test_the_lowest_span_with_room_is_taken(
    free: list[tuple[int, int]], size: int, start: int | None
) -> None:
    assert free_start(free, size) == start


def test_accounts_are_read_only_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("many:x:77:\nbroken\n::\n")
    (tmp_path / "etc/passwd").symlink_to("/proc/self/status")
    assert highest_id_in_accounts(str(tmp_path)) == 77
