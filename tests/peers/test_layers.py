"""Layers that containers-storage makes look to hostspec as they do to itself, and the other way round."""

from __future__ import annotations

from hostspec.store import Store
from tests.peers.clients import Place, require_program
from tests.peers.players import play_hostspec, play_peer

MAP = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")


def test_the_root_of_an_empty_layer_is_no_change_whoever_made_it(place: Place, store: Store) -> None:
    require_program("containers-storage")
    place.containers_storage("create-layer", "-i", "theirs")
    store.create_layer(layer_id="ours")
    assert list(store.changes("theirs")) == []
    assert place.containers_storage("changes", "ours") == ""


def test_a_layer_is_recorded_with_a_map_only_where_mounts_are_not_shifted(place: Place, store: Store) -> None:
    require_program("containers-storage")
    place.containers_storage("create-layer", "-i", "theirs", *MAP)
    assert play_hostspec(place, ("create-layer", "-i", "ours", *MAP)).done
    assert store.layer("ours").idmap == store.layer("theirs").idmap


def test_an_image_is_mounted_only_by_who_says_read_only(place: Place, store: Store) -> None:
    require_program("containers-storage")
    layer = store.create_layer()
    store.create_image(layer.id, names=["an-image"])
    for play in (play_hostspec, play_peer):
        refused = play(place, ("mount", "an-image"))
        assert not refused.done
        assert "not known" in refused.error
    assert store.mounted(layer.id) == 0
    assert play_hostspec(place, ("mount", "-r", "an-image")).done
    store.unmount("an-image")
