"""Which way a container gets its ID map, and what is said about it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostspec.errors import OperationNotSupported, SlowWayRefused
from hostspec.idmap import IdMap
from hostspec.store import Image, Store, open_store
from hostspec.store.copies.strategies import Choice
from tests.store.conftest import OpenStore
from tests.store.tars import MAP, OTHER_MAP, tar_of

MAPPED = IdMap.parse([MAP])
OTHERWISE = IdMap.parse([OTHER_MAP])

Opened = Callable[..., Store]


@pytest.fixture
def tmp_path(ext4_directory: str) -> Path:
    """Where files cannot share their blocks, so that copies are slow."""
    return Path(ext4_directory)


@pytest.fixture
def opened(open_here: OpenStore) -> Iterator[Opened]:
    """Opens the test's store with options; all are closed in the end."""
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    with ExitStack() as stack:

        def run(*options: str, driver: str = "vfs", shift: str = "auto") -> Store:
            return stack.enter_context(open_here(*options, driver=driver, shift=shift))

        yield run


def image_in(store: Store) -> Image:
    layer = store.import_layer(io.BytesIO(tar_of({"file": b"content", "other": b""}, uid=10, gid=20)))
    return store.create_image(layer.id, names=["image"])


def can_shift(store: Store) -> bool:
    return store.driver.supports_shifting(MAPPED).possible


def ways_of(choice: Choice) -> dict[str, bool]:
    return {way.name: way.possible for way in choice.ways}


def test_every_way_is_told_with_what_makes_it_possible_or_not(opened: Opened) -> None:
    store = opened("vfs.hostspec_shifting=false")
    image_in(store)
    choice = store.explain_idmap("image", MAPPED)
    assert (choice.way, choice.slow) == ("copy", True)
    assert [way.name for way in choice.ways] == ["shift", "template", "copy"]
    assert ways_of(choice) == {"shift": False, "template": False, "copy": True}
    assert "hostspec_shifting" in choice.ways[0].reason
    assert choice.ways[1].reason == "the driver does not copy layers by itself"


def test_explaining_makes_nothing(opened: Opened) -> None:
    store = opened("vfs.hostspec_shifting=false")
    image = image_in(store)
    store.explain_idmap("image", MAPPED)
    assert store.image(image.id).mapped_layers == ()
    assert (len(store.layers()), store.containers()) == (1, ())


def test_a_copy_that_is_there_is_explained_as_such(opened: Opened) -> None:
    store = opened("vfs.hostspec_shifting=false")
    image_in(store)
    store.create_container("image", idmap=MAPPED)
    (copy,) = store.image("image").mapped_layers
    choice = store.explain_idmap("image", MAPPED)
    assert (choice.way, choice.slow) == ("reuse", False)
    assert choice.stands_on == store.layer(copy)
    assert store.explain_idmap("image", OTHERWISE).way == "copy"


def test_without_a_map_there_is_nothing_to_choose(opened: Opened) -> None:
    store = opened()
    image = image_in(store)
    choice = store.explain_idmap("image")
    assert (choice.way, choice.ways) == ("none", ())
    assert choice.stands_on == store.layer(image.layer or "")


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_auto_shifts_where_the_driver_can(opened: Opened, driver: str) -> None:
    store = opened(driver=driver)
    image_in(store)
    if not can_shift(store):
        pytest.skip("this kernel cannot shift here")
    assert store.explain_idmap("image", MAPPED).way == "shift"
    container = store.create_container("image", idmap=MAPPED)
    assert (store.layer(container.layer).idmap, container.idmap) == (IdMap(), MAPPED)


def test_native_only_makes_copies_where_the_go_library_does_not_shift(opened: Opened) -> None:
    store = opened(shift="native-only")
    image_in(store)
    choice = store.explain_idmap("image", MAPPED)
    assert choice.way == "copy"
    if can_shift(store):
        assert "shift=native-only" in choice.ways[0].reason
    assert choice.not_for_podman == ""


def test_native_only_shifts_where_the_go_library_does(opened: Opened) -> None:
    store = opened(driver="overlay", shift="native-only")
    image_in(store)
    if not can_shift(store):
        pytest.skip("this kernel cannot shift here")
    assert store.explain_idmap("image", MAPPED).way == "shift"


def test_who_names_shifting_counts_more_than_native_only(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(shift="native-only")
    image_in(store)
    if not can_shift(store):
        pytest.skip("this kernel cannot shift here")
    container = store.create_container("image", idmap=MAPPED, strategy="shift")
    assert store.layer(container.layer).idmap == IdMap()
    assert "podman" in caplog.text
    assert "shifting not enabled" in caplog.text


@pytest.mark.parametrize("strategy", ["template", "copy"])
def test_forcing_a_copy_where_podman_shifts_says_that_podman_cannot_mount_it(
    opened: Opened, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    store = opened(f"hostspec.idmap_strategy={strategy}", driver="overlay")
    image_in(store)
    if not can_shift(store):
        pytest.skip("this kernel cannot shift here")
    choice = store.explain_idmap("image", MAPPED)
    assert choice.way == strategy
    assert "cannot mount it" in choice.not_for_podman
    assert caplog.text == ""
    store.create_container("image", idmap=MAPPED)
    assert [each.getMessage() for each in caplog.records] == [
        f"a mapped copy was asked for: {choice.not_for_podman}"
    ]
    assert [copy.strategy for copy in store.mapped_copies()] == [strategy]


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_what_auto_chooses_is_no_reason_to_warn(
    opened: Opened, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    store = opened(driver=driver)
    image_in(store)
    store.create_container("image", idmap=MAPPED)
    assert caplog.text == ""


def test_a_strategy_that_is_named_counts_more_than_the_option(opened: Opened) -> None:
    store = opened("hostspec.idmap_strategy=copy", driver="overlay")
    image_in(store)
    store.create_container("image", idmap=MAPPED, strategy="template")
    assert [copy.strategy for copy in store.mapped_copies()] == ["template"]


def test_an_image_on_a_copy_is_not_shifted_even_if_that_is_named(opened: Opened) -> None:
    store = opened("overlay.hostspec_shifting=false", driver="overlay")
    image_in(store)
    store.create_container("image", idmap=MAPPED)
    (copy,) = store.image("image").mapped_layers
    store.create_image(copy, names=["odd"])
    shifting = opened(driver="overlay")
    if not can_shift(shifting):
        pytest.skip("this kernel cannot shift here")
    assert f"layer {copy} is for an ID map already" in shifting.explain_idmap("odd", OTHERWISE).ways[0].reason
    with pytest.raises(OperationNotSupported, match="is for an ID map already"):
        shifting.create_container("odd", idmap=OTHERWISE, strategy="shift")


@pytest.mark.parametrize(("mount_options", "slow"), [("", True), ("metacopy=on", False)])
def test_a_template_is_slow_where_it_copies_content(opened: Opened, mount_options: str, slow: bool) -> None:
    store = opened(
        "overlay.hostspec_shifting=false",
        f"overlay.mountopt={mount_options}",
        "hostspec.on_slow_path=refuse",
        driver="overlay",
    )
    image_in(store)
    choice = store.explain_idmap("image", MAPPED)
    assert (choice.way, choice.slow) == ("template", slow)
    assert choice.ways[1].cost.startswith("every byte" if slow else "one change of owner for each file")
    if not slow:
        store.create_container("image", idmap=MAPPED)
        return
    with pytest.raises(SlowWayRefused):
        store.create_container("image", idmap=MAPPED)


@pytest.mark.parametrize(("driver", "way"), [("overlay", "template"), ("vfs", "copy")])
def test_a_copy_that_shares_blocks_is_not_slow(xfs_directory: str, driver: str, way: str) -> None:
    with open_store(
        root=f"{xfs_directory}/graph",
        run_root=f"{xfs_directory}/run",
        driver=driver,
        options=[f"{driver}.hostspec_shifting=false", "hostspec.on_slow_path=refuse"],
    ) as store:
        image_in(store)
        choice = store.explain_idmap("image", MAPPED)
        assert (choice.way, choice.slow) == (way, False)
        chosen = next(each for each in choice.ways if each.name == way)
        assert chosen.cost.startswith("each file made anew, with the blocks of the old one")
        store.create_container("image", idmap=MAPPED)
        store.wipe()


def test_a_slow_copy_is_refused_with_its_cost_and_the_way_out(opened: Opened) -> None:
    store = opened("hostspec.on_slow_path=refuse", shift="native-only")
    image = image_in(store)
    with pytest.raises(SlowWayRefused) as refused:
        store.create_container("image", idmap=MAPPED)
    assert refused.value.files == 3  # with the root directory
    assert refused.value.size == store.copy_cost("image").size >= len("content")
    assert "3 files, " in str(refused.value)
    assert "'hostspec warm --uidmap 0:100000:65536 image'" in str(refused.value)
    assert "on_slow_path" in str(refused.value)
    assert (store.containers(), store.image(image.id).mapped_layers) == ((), ())


def test_the_way_out_of_a_refusal_is_one(opened: Opened) -> None:
    store = opened("hostspec.on_slow_path=refuse", shift="native-only")
    image_in(store)
    made = store.warm("image", MAPPED)
    assert made.way == "copy"
    container = store.create_container("image", idmap=MAPPED)
    assert made.layer is not None
    assert store.layer(container.layer).parent == made.layer.id


def test_the_way_out_names_both_halves_of_a_map_where_they_differ(opened: Opened) -> None:
    store = opened("hostspec.on_slow_path=refuse", shift="native-only")
    image_in(store)
    uneven = IdMap.parse(["0:100000:65536"], ["0:200000:100", "100:300000:100"])
    with pytest.raises(
        SlowWayRefused, match="--uidmap 0:100000:65536 --gidmap 0:200000:100 --gidmap 100:300000:100"
    ):
        store.create_container("image", idmap=uneven)
    with pytest.raises(SlowWayRefused, match="--uidmap 0:100000:65536 --hostgidmap image"):
        store.create_container("image", idmap=IdMap([(0, 100000, 65536)], []))


def test_a_slow_copy_is_made_with_a_warning(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    store = opened("hostspec.on_slow_path=warn", shift="native-only")
    image_in(store)
    store.create_container("image", idmap=MAPPED)
    assert "first takes a copy of 3 files, " in caplog.text
    caplog.clear()
    store.create_container("image", idmap=MAPPED)
    assert caplog.text == ""


def test_warming_needs_nothing_where_containers_are_shifted(opened: Opened) -> None:
    store = opened()
    image = image_in(store)
    if not can_shift(store):
        pytest.skip("this kernel cannot shift here")
    warmth = store.warm("image", MAPPED)
    assert (warmth.way, warmth.layer) == ("shift", None)
    assert store.image(image.id).mapped_layers == ()
    assert store.warm("image").way == "none"


def test_warming_twice_makes_one_copy_and_renews_it(opened: Opened) -> None:
    store = opened(shift="native-only")
    image = image_in(store)
    first = store.warm("image", MAPPED)
    before = store.mapped_copies()[0].last_used
    again = store.warm("image", MAPPED)
    assert (again.way, again.layer) == ("reuse", first.layer)
    assert len(store.image(image.id).mapped_layers) == 1
    assert (store.mapped_copies()[0].last_used or "") > (before or "")
