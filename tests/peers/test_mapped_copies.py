"""One mapped copy serves podman and hostspec, whoever made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.images.importing import import_image
from hostspec.store import Image, Store
from hostspec.store.configuration.policy import Strategy
from tests.peers.busybox import GREETING, GREETING_OWNER
from tests.peers.clients import Place, require_program

NAME = "localhost/greeter:latest"
MAP = "0:100000:65536"
OTHER_MAP = "0:200000:65536"
MAPPED, OTHERWISE_MAPPED = IdMap.parse([MAP]), IdMap.parse([OTHER_MAP])
READ = ("/bin/sh", "-c", "cat /etc/greeting; stat -c '%u %g' /etc/greeting; echo written > /new")
SEEN = GREETING + " ".join(map(str, GREETING_OWNER))


@pytest.fixture
def image(store: Store, busybox_root: str) -> Image:
    """An image that hostspec imported."""
    require_program("podman")
    return import_image(store, busybox_root, names=[NAME])


@pytest.fixture
def shifts(store: Store) -> bool:
    """Whether containers of this store are shifted when they are mounted, so that nobody needs copies."""
    return store.explain_idmap(None, MAPPED).way == "shift"


def copies_of(store: Store) -> dict[str, IdMap]:
    return {copy.layer.id: copy.layer.idmap for copy in store.mapped_copies()}


@pytest.mark.usefixtures("image")
def test_podman_runs_on_a_copy_that_hostspec_made(place: Place, store: Store, shifts: bool) -> None:
    if shifts:
        pytest.skip("podman shifts here, and needs no copy")
    store.create_container(NAME, idmap=MAPPED)
    before = copies_of(store)
    assert place.podman("run", "--name", "theirs", "--uidmap", MAP, NAME, *READ) == SEEN
    assert copies_of(store) == before
    theirs = store.layer(store.container("theirs").layer)
    assert (theirs.parent in before, theirs.idmap) == (True, MAPPED)
    assert [str(change) for change in store.changes("theirs") if change.path == "/new"] == ["Add /new"]
    place.podman("rm", "theirs")
    assert copies_of(store) == before


@pytest.mark.usefixtures("image")
def test_hostspec_uses_a_copy_that_podman_made(place: Place, store: Store, shifts: bool) -> None:
    if shifts:
        pytest.skip("podman shifts here, and makes no copy")
    assert place.podman("run", "--rm", "--uidmap", MAP, NAME, *READ) == SEEN
    made = copies_of(store)
    assert list(made.values()) == [MAPPED]
    ours = store.create_container(NAME, idmap=MAPPED)
    assert copies_of(store) == made
    assert store.layer(ours.layer).idmap == MAPPED
    with store.mounting(ours.id) as root:
        assert Path(root, "etc", "greeting").read_text() == GREETING


@pytest.mark.parametrize("strategy", ["template", "copy"])
def test_podman_is_not_disturbed_by_copies_of_its_image(
    place: Place, store: Store, image: Image, strategy: Strategy
) -> None:
    maps = (MAPPED, OTHERWISE_MAPPED)
    made = [store.create_container(NAME, idmap=idmap, strategy=strategy) for idmap in maps]
    before = copies_of(store)
    assert set(before.values()) == {MAPPED, OTHERWISE_MAPPED}
    for words in ((), ("--uidmap", MAP), ("--uidmap", OTHER_MAP)):
        assert place.podman("run", "--rm", *words, NAME, *READ) == SEEN
    assert copies_of(store) == before
    assert store.image(NAME).layer == image.layer
    for container in made:
        store.delete_container(container.id)
    place.podman("image", "rm", NAME)
    assert store.layers() == ()
