from __future__ import annotations

import io

import pytest

from hostspec.errors import Unknown
from hostspec.images.layer_reuse import abandoned_on_error, layer_id_of, obtain_layer
from hostspec.store import Layer, Store
from hostspec.store.unsettled import Note, Unsettled
from tests.store.tars import digest_of, tar_of

TAR = tar_of({"etc": None, "etc/name": b"base\n"})
DIFF_ID = digest_of(TAR)


def test_a_layer_gets_the_id_that_the_go_clients_look_for() -> None:
    base = layer_id_of(f"sha256:{'1' * 64}", None)

    assert base == "1" * 64
    # sha256sum of the parent's ID, a plus sign, and the digest
    assert layer_id_of(f"sha256:{'2' * 64}", base) == digest_of(f"{base}+{'2' * 64}".encode())[7:]


def test_a_layer_that_somebody_makes_meanwhile_is_used(store: Store) -> None:
    def make(layer_id: str | None) -> Layer:
        other = store.import_layer(io.BytesIO(TAR), layer_id=layer_id)
        made.append(other)
        return store.import_layer(io.BytesIO(TAR), layer_id=layer_id)  # Duplicate

    made: list[Layer] = []

    layer, is_new = obtain_layer(store, DIFF_ID, None, make)

    assert (layer.id, is_new) == (made[0].id, False)
    assert [each.id for each in store.layers()] == [layer.id]


def test_where_the_id_is_taken_by_another_layer_any_will_do(store: Store) -> None:
    other = store.create_layer(layer_id=layer_id_of(DIFF_ID, None))

    layer, is_new = obtain_layer(
        store, DIFF_ID, None, lambda layer_id: store.import_layer(io.BytesIO(TAR), layer_id=layer_id)
    )

    assert is_new
    assert layer.id != other.id


def test_of_two_layers_of_one_content_the_older_is_used(store: Store) -> None:
    older = store.import_layer(io.BytesIO(TAR))

    layer, is_new = obtain_layer(
        store, None, None, lambda layer_id: store.import_layer(io.BytesIO(TAR), layer_id=layer_id)
    )

    assert (layer.id, is_new) == (older.id, False)
    assert len(store.layers()) == 1


def test_what_is_unknown_but_the_layer_itself_is_an_error(store: Store) -> None:
    def make(layer_id: str | None) -> Layer:
        return store.import_layer(io.BytesIO(TAR), "no-such-parent", layer_id=layer_id)

    with pytest.raises(Unknown, match="no-such-parent"):
        obtain_layer(store, DIFF_ID, None, make)


def test_clearing_up_after_the_dead_spares_a_layer_of_the_same_id_in_the_making(
    store: Store,
) -> None:
    class LeavingNote:
        """While it is read, a process that makes the same layer dies."""

        def __init__(self) -> None:
            self.content = io.BytesIO(TAR)

        def read(self, size: int = -1) -> bytes:
            Unsettled(f"{store.root}/vfs-layers/hostspec/unsettled").write(Note("layer", "same"))
            return self.content.read(size)

    store.create_image(None)

    layer = store.import_layer(LeavingNote(), layer_id="same")  # type: ignore[arg-type]

    assert [each.id for each in store.layers()] == [layer.id] == ["same"]
    assert list(store.driver.list_layers()) == ["same"]


def test_layers_on_which_others_have_built_are_not_abandoned(store: Store) -> None:
    def work() -> None:
        with abandoned_on_error(store) as made:
            made.append(store.import_layer(io.BytesIO(TAR)))
            made.append(store.import_layer(io.BytesIO(TAR), made[0].id))
            store.create_layer(made[0].id, layer_id="others")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()

    others = store.layer("others")
    assert {each.id for each in store.layers()} == {"others", others.parent}
