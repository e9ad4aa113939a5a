from __future__ import annotations

from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.store import open_store
from hostspec.store.configuration.policy import Policy, parse_policy, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7d", 604_800.0),
        ("1d12h", 129_600.0),
        ("1.5h", 5_400.0),
        ("90s", 90.0),
        ("2w", 1_209_600.0),
    ],
)
def test_times_are_read_with_their_units(text: str, seconds: float) -> None:
    assert seconds_of(text, "here") == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "-7d", "7x", "7d and more"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="here: must be a time such as 7d"):
        seconds_of(text, "here")


def test_the_last_of_an_option_counts_and_an_empty_one_is_none() -> None:
    assert parse_policy([]) == Policy()
    given = [("shift", "auto"), ("shift", "native-only"), ("on_slow_path", "")]
    assert parse_policy(given) == Policy(shift="native-only")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shift", "never", "hostspec.shift=never: must be one of auto, native-only"),
        ("on_slow_path", "maybe", "must be one of allow, warn, refuse"),
        ("idmap_strategy", "magic", "must be one of auto, shift, template, copy"),
        ("remove_mapped_unused_for", "soon", "must be a time"),
        ("shfit", "auto", "hostspec.shfit: is not known; there are shift, idmap_strategy"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_policy([(name, value)])


def test_a_store_shows_the_options_that_it_was_given(tmp_path: Path) -> None:
    given = ("hostspec.shift=native-only", "hostspec.remove_mapped_unused_for=7d", "vfs.sync=filesystem")
    with open_store(
        root=str(tmp_path / "graph"), run_root=str(tmp_path / "run"), driver="vfs", options=given
    ) as store:
        assert store.policy == Policy(shift="native-only", remove_mapped_unused_for=604_800.0)
        assert store.options == (
            "vfs.sync=filesystem",
            "hostspec.shift=native-only",
            "hostspec.remove_mapped_unused_for=604800s",
        )
        with open_store(
            root=str(tmp_path / "graph"), run_root=str(tmp_path / "run"), driver="vfs", options=store.options
        ) as again:
            assert again.policy == store.policy
