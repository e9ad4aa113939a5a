from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable

import pytest

from hostspec.errors import IdNotMapped, InvalidRequest, OperationNotSupported, Unknown
from hostspec.idmap import IdMap
from hostspec.store import Image, Layer, Store
from hostspec.store.graph_root import GraphRoot
from tests.sample_tree import acl
from tests.store.conftest import OpenStore
from tests.store.tars import MAP, OTHER_MAP, tar_of

Tree = dict[str, tuple[int, int, bytes]]
MAPPED = IdMap.parse([MAP])


def parent_of(store: Store, reference: str) -> Layer:
    return store.layer(store.layer(store.container(reference).layer).parent or "")


def shown(store: Store, reference: str, tree_of: Callable[[str], Tree]) -> Tree:
    with store.mounting(reference) as path:
        return tree_of(path)


def test_a_container_without_a_map_stands_on_the_top_layer(store: Store, image: Image) -> None:
    container = store.create_container(image.id)
    assert parent_of(store, container.id).id == image.layer
    assert store.image(image.id).mapped_layers == ()


@pytest.mark.parametrize("strategy", ["auto", "template", "copy"])
def test_a_mapped_container_shows_every_file_with_its_mapped_owner(
    store: Store, image: Image, tree_of: Callable[[str], Tree], strategy: str
) -> None:
    container = store.create_container(image.id, idmap=MAPPED, strategy=strategy)  # type: ignore[arg-type]
    assert shown(store, container.id, tree_of) == {
        "a": (100000, 100000, b"short name"),
        "etc/name": (100010, 100020, b"top\n"),
    }
    assert shown(store, image.id, tree_of)["etc/name"] == (10, 20, b"top\n")


def test_a_copy_is_recorded_as_one_layer_on_the_template_s_parent(store: Store, image: Image) -> None:
    container = store.create_container(image.id, idmap=MAPPED)
    copy = parent_of(store, container.id)
    top = store.layer(image.layer or "")
    assert store.image(image.id).mapped_layers == (copy.id,)
    assert copy == top._replace(id=copy.id, created=copy.created, idmap=MAPPED)
    assert store.layer(container.layer).idmap == MAPPED
    assert list(store.changes(copy.id, top.id)) == []
    assert list(map(str, store.changes(copy.id))) == list(map(str, store.changes(top.id)))


def test_the_next_container_with_the_same_map_reuses_the_copy(store: Store, image: Image) -> None:
    first = store.create_container(image.id, idmap=MAPPED)
    second = store.create_container(image.id, idmap=IdMap.parse(["0:100000:1000", "1000:101000:64536"]))
    assert parent_of(store, first.id) == parent_of(store, second.id)
    assert len(store.image(image.id).mapped_layers) == 1


def test_gids_are_compared_as_well_as_uids(
    store: Store, image: Image, tree_of: Callable[[str], Tree]
) -> None:
    store.create_container(image.id, idmap=MAPPED)
    other = store.create_container(image.id, idmap=IdMap.parse([MAP], [OTHER_MAP]))
    assert len(store.image(image.id).mapped_layers) == 2
    assert shown(store, other.id, tree_of)["etc/name"] == (100010, 200020, b"top\n")


def test_an_identity_map_is_no_map(store: Store, image: Image) -> None:
    container = store.create_container(image.id, idmap=IdMap.parse(["0:0:4294967295"]))
    assert parent_of(store, container.id).id == image.layer
    assert container.idmap == IdMap()


def test_a_container_without_an_image_has_an_empty_root_of_its_own(store: Store) -> None:
    container = store.create_container(idmap=MAPPED)
    with store.mounting(container.id) as path:
        assert os.listdir(path) == []
        assert os.stat(path).st_uid == 100000
    assert store.create_container(store.create_image().id).image


def test_an_owner_outside_the_map_leaves_nothing(store: Store, image: Image) -> None:
    with pytest.raises(IdNotMapped) as caught:
        store.create_container(image.id, idmap=IdMap.parse(["0:100000:5"]))
    assert caught.value.number == 10
    assert store.image(image.id).mapped_layers == ()
    assert len(store.layers()) == len(store.driver.list_layers()) == 2
    assert store.containers() == ()
    squashed = store.create_container(image.id, idmap=IdMap.parse(["0:100000:5"]), squash=True)
    assert parent_of(store, squashed.id).idmap == IdMap.parse(["0:100000:5"])


def test_a_squashed_copy_is_only_for_containers_that_allow_squashing(store: Store, image: Image) -> None:
    small = IdMap.parse(["0:100000:5"])
    squashed = parent_of(store, store.create_container(image.id, idmap=small, squash=True).id)
    with pytest.raises(IdNotMapped):
        store.create_container(image.id, idmap=small)
    again = store.create_container(image.id, idmap=small, squash=True)
    assert parent_of(store, again.id).id == squashed.id
    assert store.image(image.id).mapped_layers == (squashed.id,)
    assert [copy.strategy for copy in store.mapped_copies()] == ["copy"]


def test_that_a_copy_is_squashed_is_on_disk_before_its_image_names_it(
    store: Store, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def observed(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", observed)
    container = store.create_container(image.id, idmap=IdMap.parse(["0:100000:5"]), squash=True)
    copy = parent_of(store, container.id)
    names = [os.path.basename(path) for path in synced]
    assert names.index(copy.id) < names.index(".tmp-images.json")


def test_a_copy_in_which_nothing_had_to_be_squashed_serves_everybody(store: Store, image: Image) -> None:
    allowing = store.create_container(image.id, idmap=MAPPED, squash=True)
    exact = store.create_container(image.id, idmap=MAPPED)
    assert parent_of(store, allowing.id) == parent_of(store, exact.id)
    assert [copy.squashed for copy in store.mapped_copies()] == [False]


def test_ids_that_only_an_acl_has_are_squashed_too(
    store: Store, image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    top = store.layer(image.layer or "")
    with store.mounting(top.id) as path:
        os.setxattr(f"{path}/etc/name", "system.posix_acl_access", acl({70_000: 4}, {}))
    with pytest.raises(IdNotMapped):
        store.create_container(image.id, idmap=MAPPED)
    store.create_container(image.id, idmap=MAPPED, squash=True)
    assert [copy.squashed for copy in store.mapped_copies()] == [True]
    assert "UIDs 70000" in caplog.text


def test_what_is_squashed_is_said(store: Store, image: Image, caplog: pytest.LogCaptureFixture) -> None:
    store.create_container(image.id, idmap=IdMap.parse(["0:100000:15"]), squash=True)
    (warning,) = [each.getMessage() for each in caplog.records]
    assert warning == (
        "image image: owners outside the ID map 0:100000:15 are squashed to the nearest in it: GIDs 20"
    )


def test_a_squashed_copy_goes_with_its_image(store: Store, image: Image) -> None:
    small = IdMap.parse(["0:100000:5"])
    made = [
        store.create_container(image.id, idmap=small, squash=True),
        store.create_container(image.id, idmap=MAPPED),
    ]
    assert len(store.image(image.id).mapped_layers) == 2
    for container in made:
        store.delete_container(container.id)
    store.delete_image(image.id)
    assert (store.layers(), list(store.driver.list_layers())) == ((), [])


def test_a_driver_that_cannot_shift_says_so(open_here: OpenStore, store: Store, image: Image) -> None:
    with (
        open_here("vfs.hostspec_shifting=false") as unable,
        pytest.raises(OperationNotSupported, match="hostspec_shifting"),
    ):
        unable.create_container(image.id, idmap=MAPPED, strategy="shift")
    assert store.containers() == ()


def test_an_image_whose_top_layer_is_mapped_gets_an_unmapped_copy(
    store: Store, image: Image, tree_of: Callable[[str], Tree]
) -> None:
    mapped_top = store.create_layer(image.layer, idmap=MAPPED)
    odd = store.create_image(mapped_top.id)
    container = store.create_container(odd.id)
    assert shown(store, container.id, tree_of)["etc/name"] == (10, 20, b"top\n")
    assert [store.layer(each).idmap for each in store.image(odd.id).mapped_layers] == [IdMap()]


def test_copies_can_be_seen_with_their_users(store: Store, image: Image) -> None:
    first = store.create_container(image.id, idmap=MAPPED)
    second = store.create_container(image.id, idmap=MAPPED)
    (copy,) = store.mapped_copies()
    assert copy.image.id == image.id
    assert copy.layer.idmap == MAPPED
    assert copy.strategy == "copy"  # vfs has no way of its own
    assert copy.containers == (first.id, second.id)
    assert copy.usage.exclusive_bytes > 0
    assert copy.last_used is not None
    assert copy.last_used >= copy.layer.created
    store.delete_container(first.id)
    store.delete_container(second.id)
    store.delete_layer(copy.layer.id)
    assert store.mapped_copies() == []
    assert store.image(image.id).mapped_layers == ()
    assert os.listdir(os.path.join(store.root, "vfs-layers/hostspec/copies")) == []


def test_threads_that_want_the_same_copy_make_one(store: Store, image: Image) -> None:
    def run() -> None:
        store.create_container(image.id, idmap=MAPPED)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.containers()) == 4
    assert len(store.image(image.id).mapped_layers) == 1
    assert os.listdir(os.path.join(store.run_root, "vfs-locks")) == []


def test_a_copy_that_somebody_made_meanwhile_is_used_instead_of_ours(
    store: Store, image: Image, graph_root: GraphRoot
) -> None:
    """Other programs do not know our lock for one copy: what they made is noticed under the layer lock."""
    template = store.layer(image.layer or "")
    theirs = store.create_layer(template.id, idmap=MAPPED)

    def in_the_middle(_: object) -> None:
        with graph_root.images.writing() as images:
            images.put(images.get(image.id)._replace(mapped_layers=(theirs.id,)))
            images.save()

    container = store.create_container(image.id, idmap=MAPPED, progress=in_the_middle)
    assert parent_of(store, container.id).id == theirs.id
    assert store.image(image.id).mapped_layers == (theirs.id,)
    assert sorted(store.driver.list_layers()) == sorted(layer.id for layer in store.layers())


def test_a_container_of_an_image_that_goes_meanwhile_is_not_made(
    store: Store, image: Image, open_here: OpenStore
) -> None:
    def in_the_middle(_: object) -> None:
        with open_here() as other:
            if other.has_image(image.id):
                other.delete_image(image.id)

    with pytest.raises(Unknown):
        store.create_container(image.id, idmap=MAPPED, progress=in_the_middle)
    assert (store.layers(), store.images(), store.containers()) == ((), (), ())
    assert list(store.driver.list_layers()) == []


def test_a_shifted_container_has_a_map_and_its_layer_none(
    overlay_store: Store, tree_of: Callable[[str], Tree]
) -> None:
    store = overlay_store
    if not store.driver.supports_shifting(MAPPED).possible:
        pytest.skip("this kernel cannot shift")
    layer = store.import_layer(io.BytesIO(tar_of({"file": b"x"}, uid=10, gid=20)))
    image = store.create_image(layer.id)
    container = store.create_container(image.id, idmap=MAPPED)
    assert container.idmap == MAPPED
    assert store.layer(container.layer).idmap == IdMap()
    assert store.layer(container.layer).parent == layer.id
    assert store.image(image.id).mapped_layers == ()
    with store.mounting(container.id) as path:
        assert tree_of(path)["file"] == (100010, 100020, b"x")
        with open(os.path.join(path, "new"), "w", encoding="ascii") as file:
            os.fchown(file.fileno(), 100030, 100040)
    assert [str(each) for each in store.changes(container.id)] == ["Add /new"]
    with store.diff(container.id) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        assert [(each.name, each.uid, each.gid) for each in tar if each.isfile()] == [("new", 30, 40)]
    with pytest.raises(InvalidRequest, match="shifted"):
        store.create_image(container.layer)


def test_nothing_that_stands_on_a_copy_is_shifted(
    overlay_store: Store, tree_of: Callable[[str], Tree]
) -> None:
    """The driver may have built the copy on a layer that carries other IDs."""
    store = overlay_store
    mapped = store.import_layer(io.BytesIO(tar_of({"file": b"x"}, uid=10, gid=20)), idmap=MAPPED)
    image = store.create_image(mapped.id)
    unmapped = parent_of(store, store.create_container(image.id).id)
    assert unmapped.idmap == IdMap()
    container = store.create_container(image.id, idmap=IdMap.parse([OTHER_MAP]))
    assert store.layer(container.layer).idmap == container.idmap
    assert shown(store, container.id, tree_of)["file"] == (200010, 200020, b"x")
    on_copy = store.create_image(store.create_layer(unmapped.id).id)
    container = store.create_container(on_copy.id, idmap=IdMap.parse([OTHER_MAP]))
    assert store.layer(container.layer).idmap == container.idmap
    assert shown(store, container.id, tree_of)["file"] == (200010, 200020, b"x")
