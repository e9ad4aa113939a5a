"""What has come in a tar is known in little memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.content_places import Came, ContentPlaces

MANY = 30_000


@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(Came)), max_size=4000))
def test_places_are_known_as_a_dictionary_would_know_them(noted: list[tuple[int, Came]]) -> None:
    places, model = ContentPlaces(), dict[bytes, Came]()
    for number, came in noted:
        name = b"%d" % number
        assert places.get(name) is model.get(name)
        assert places.note(name, came) is model.get(name)
        model[name] = came
    for number in range(3000):
        assert places.get(b"%d" % number) is model.get(b"%d" % number)


def test_many_places_take_few_bytes_each() -> None:
    tracemalloc.start()
    try:
        places = ContentPlaces()
        for number in range(MANY):
            places.note(b"%d" % number, Came.CONTENT if number % 3 == 0 else Came.OTHER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MANY
    assert [places.get(b"%d" % number) for number in (0, 1, 2, MANY - 3, MANY)] == [
        Came.CONTENT,
        Came.OTHER,
        Came.OTHER,
        Came.CONTENT,
        None,
    ]


def test_nothing_is_known_once_it_has_been_cleared() -> None:
    places = ContentPlaces()
    places.note(b"name", Came.CONTENT)
    places.clear()
    assert places.get(b"name") is None
