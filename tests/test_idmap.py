"""ID maps against a model: plain dictionaries from container ID to host ID."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.errors import IdNotMapped, InvalidIdMap
from hostspec.idmap import ID_LIMIT, IdMap, IdRange, IdRanges

LAST_ID = ID_LIMIT - 1


@st.composite
def id_ranges(draw: st.DrawFn, *, last: int = LAST_ID, most: int = 6) -> IdRanges:
    """Draw some disjoint ranges, in any order, with IDs up to ``last``."""
    sizes = draw(st.lists(st.integers(1, max(1, last // 20)), min_size=1, max_size=most))
    container_ids = draw(_starts(sizes, last))
    order = draw(st.permutations(range(len(sizes))))
    host_ids = draw(_starts([sizes[at] for at in order], last))
    ranges = [IdRange(container_ids[at], host_ids[place], sizes[at]) for place, at in enumerate(order)]
    return IdRanges(ranges, kind="UID")


def _starts(sizes: list[int], last: int) -> st.SearchStrategy[list[int]]:
    """Draw where ranges of these sizes begin, ascending and disjoint, none beyond ``last``."""
    before = [0, *accumulate(sizes)]
    cuts = st.lists(st.integers(0, last + 1 - before[-1]), min_size=len(sizes), max_size=len(sizes))
    return cuts.map(lambda gaps: [gap + taken for gap, taken in zip(sorted(gaps), before, strict=False)])


SMALL = id_ranges(last=60)


def _model(ranges: IdRanges) -> dict[int, int]:
    return {
        container_id + offset: host_id + offset
        for container_id, host_id, size in ranges
        for offset in range(size)
    }


# Text


@given(id_ranges())
def test_ranges_are_read_as_they_are_written(ranges: IdRanges) -> None:
    read = IdRanges.parse([str(ranges)])
    assert list(read) == list(ranges)
    assert read == ranges


@given(id_ranges(), id_ranges())
def test_a_map_is_read_as_its_halves_are_written(uids: IdRanges, gids: IdRanges) -> None:
    idmap = IdMap(uids, gids)
    assert IdMap.parse([str(each) for each in uids], [str(gids)]) == idmap
    assert IdMap.parse([str(uids)]) == IdMap(uids, IdRanges(uids)) == IdMap.parse(gids=[str(uids)])


NUMBERS = st.integers(0, ID_LIMIT + 5).map(str)


@given(
    st.text(alphabet="0123456789:- +_x\u0663", max_size=20)
    | st.lists(NUMBERS, min_size=2, max_size=4).map(":".join)
    | st.just("1" * 5_000 + ":0:1")
)
def test_text_is_a_range_or_a_clear_error(text: str) -> None:
    fields = re.fullmatch(r"\s*([0-9]{1,20}):([0-9]{1,20}):([0-9]{1,20})\s*", text)
    numbers = [int(field) for field in fields.groups()] if fields else [0, 0, 0]
    if numbers[2] > 0 and max(numbers[:2]) + numbers[2] <= ID_LIMIT:
        assert list(IdRange.parse(text)) == numbers
    else:
        with pytest.raises(InvalidIdMap, match="ID range "):
            IdRange.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0:0", "must be CONTAINER:HOST:SIZE"),
        ("0:0:1:1", "must be CONTAINER:HOST:SIZE"),
        ("-1:0:1", "must be CONTAINER:HOST:SIZE"),
        ("0:0:0", "is empty"),
        (f"1:0:{ID_LIMIT}", "goes beyond the last 32-bit ID, 4294967294"),
        (f"0:{ID_LIMIT}:1", "goes beyond the last 32-bit ID, 4294967294"),
    ],
)
def test_what_is_no_range_is_refused_with_the_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidIdMap, match=reason) as refused:
        IdRange.parse(text)
    assert text in str(refused.value)


def test_the_last_id_can_be_mapped() -> None:
    ranges = IdRanges.parse([f"{LAST_ID}:0:1,0:{LAST_ID}:1"])
    assert (ranges.to_host(LAST_ID), ranges.to_host(0)) == (0, LAST_ID)


# Look-up


@given(SMALL)
def test_every_id_is_mapped_both_ways_as_the_ranges_say(ranges: IdRanges) -> None:
    model = _model(ranges)
    back = {host_id: container_id for container_id, host_id in model.items()}
    for number in range(70):
        assert ranges.find_host(number) == model.get(number)
        assert ranges.find_container(number) == back.get(number)


@given(id_ranges(), st.data())
def test_there_and_back_is_the_same_id(ranges: IdRanges, data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(list(ranges)))
    container_id = chosen.container_id + data.draw(st.integers(0, chosen.size - 1))
    assert ranges.to_container(ranges.to_host(container_id)) == container_id


def test_an_id_outside_is_an_error_with_its_side_and_number() -> None:
    ranges = IdRanges([(0, 1_000, 10)], kind="GID")
    with pytest.raises(IdNotMapped, match="container GID 10 is not in the ID map"):
        ranges.to_host(10)
    with pytest.raises(IdNotMapped, match="host GID 999 is not in the ID map"):
        ranges.to_container(999)


@given(st.integers(0, LAST_ID), st.integers(0, LAST_ID))
def test_no_map_leaves_every_id(uid: int, gid: int) -> None:
    assert IdMap().to_host(uid, gid) == IdMap().to_container(uid, gid) == (uid, gid)
    assert not IdMap()


# Inverse and composition


@given(SMALL)
def test_the_inverse_maps_the_other_way(ranges: IdRanges) -> None:
    inverse = ranges.inverse()
    assert _model(inverse) == {host_id: container_id for container_id, host_id in _model(ranges).items()}
    assert inverse.inverse() == ranges


@given(SMALL, SMALL)
def test_composing_maps_by_one_and_then_by_the_other(inner: IdRanges, outer: IdRanges) -> None:
    inside, outside = _model(inner), _model(outer)
    expected = {start: outside[middle] for start, middle in inside.items() if middle in outside}
    if expected:
        assert _model(inner.then(outer)) == expected
    else:
        with pytest.raises(InvalidIdMap, match="have no ID in common"):
            inner.then(outer)


@given(id_ranges())
def test_a_map_and_its_inverse_leave_what_they_cover(ranges: IdRanges) -> None:
    assert all(container_id == host_id for container_id, host_id, _ in ranges.then(ranges.inverse()))
    assert ranges.then(IdRanges()) == ranges == IdRanges().then(ranges)


# Equality


@given(id_ranges())
def test_the_order_of_ranges_is_kept_but_means_nothing(ranges: IdRanges) -> None:
    turned = IdRanges(reversed(list(ranges)))
    assert list(turned) == list(ranges)[::-1]
    assert turned == ranges
    assert hash(turned) == hash(ranges)


@given(SMALL)
def test_one_range_equals_its_pieces(ranges: IdRanges) -> None:
    pieces = IdRanges((container_id, host_id, 1) for container_id, host_id in _model(ranges).items())
    assert pieces == ranges
    assert hash(pieces) == hash(ranges)


@given(SMALL, SMALL)
def test_ranges_are_equal_exactly_when_they_map_alike(one: IdRanges, other: IdRanges) -> None:
    assert (one == other) == (_model(one) == _model(other))


def test_the_whole_identity_is_no_map() -> None:
    assert IdRanges([(0, 0, ID_LIMIT)]) == IdRanges()
    assert not IdMap([(0, 0, 1_000), (1_000, 1_000, ID_LIMIT - 1_000)])


# Overlaps


@given(id_ranges(most=4), st.data())
def test_an_overlap_on_either_side_is_refused_with_both_ranges(ranges: IdRanges, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(list(ranges)))
    inside = data.draw(st.integers(0, victim.size - 1))
    side = data.draw(st.sampled_from(["container", "host"]))
    if side == "container":
        intruder = IdRange(victim.container_id + inside, _free_id(ranges), 1)
    else:
        intruder = IdRange(_free_id(ranges), victim.host_id + inside, 1)
    with pytest.raises(InvalidIdMap, match=f"overlap in their {side} IDs") as refused:
        IdRanges([*ranges, intruder], kind="UID")
    assert "UID ranges" in str(refused.value)
    assert str(victim) in str(refused.value)
    assert str(intruder) in str(refused.value)


def _free_id(ranges: IdRanges) -> int:
    """Return an ID that no range has on either side."""
    ends = [start + size for container_id, host_id, size in ranges for start in (container_id, host_id)]
    return next(
        number
        for number in [0, *sorted(ends)]
        if number <= LAST_ID and ranges.find_host(number) is None and ranges.find_container(number) is None
    )


# Roots


def test_the_root_is_container_root_or_else_the_lowest_id() -> None:
    assert IdMap.parse(["5:9:1,0:1000:3"]).root() == (1_000, 1_000)
    assert IdMap([(7, 700, 2), (5, 900, 1)], [(3, 30, 1)]).root() == (900, 30)
    assert IdMap().root() == (0, 0)


def test_a_map_is_shown_in_one_line() -> None:
    assert str(IdMap()) == "none"
    assert str(IdMap.parse(["0:1000:5"])) == "0:1000:5"
    assert str(IdMap([(0, 1_000, 5)])) == "uids 0:1000:5, gids none"
