"""What has come in a tar is known in little memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.content_places import ContentPlaces

MANY = 30_000


@given(st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=4000))
def test_places_are_known_as_a_dictionary_would_know_them(noted: list[tuple[int, bool]]) -> None:
    places, model = ContentPlaces(), dict[bytes, bool]()
    for number, has_content in noted:
        name = b"%d" % number
        assert places.get(name) == model.get(name)
        places.note(name, has_content=has_content)
        model[name] = has_content
    for number in range(3000):
        assert places.get(b"%d" % number) == model.get(b"%d" % number)


def test_many_places_take_few_bytes_each() -> None:
    tracemalloc.start()
    try:
        places = ContentPlaces()
        for number in range(MANY):
            places.note(b"%d" % number, has_content=number % 3 == 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MANY
    assert [places.get(b"%d" % number) for number in (0, 1, 2, MANY - 3, MANY)] == [
        True,
        False,
        False,
        True,
        None,
    ]


def test_nothing_is_known_once_it_has_been_cleared() -> None:
    places = ContentPlaces()
    places.note(b"name", has_content=True)
    places.clear()
    assert places.get(b"name") is None
