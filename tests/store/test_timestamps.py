from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.store.format.timestamps import NEVER, nanoseconds, now, timestamp


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_time_survives_being_written_and_read(moment: int) -> None:
    assert nanoseconds(timestamp(moment)) == moment


def test_trailing_zeros_are_left_out_as_go_does() -> None:
    assert timestamp(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert timestamp(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("text", ["2023-11-14T23:13:20.5+01:00", "2023-11-14T22:13:20.500000000Z"])
def test_a_time_with_any_offset_and_precision_is_understood(text: str) -> None:
    assert nanoseconds(text) == 1_700_000_000_500_000_000


def test_no_time_is_no_number() -> None:
    assert nanoseconds(NEVER) is None
    assert nanoseconds("") is None


def test_the_present_is_in_utc() -> None:
    assert now().endswith("Z")
