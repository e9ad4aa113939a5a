"""Limits reach every driver in the contract's own form, and its own options reach it as they are."""

from __future__ import annotations

import pytest

from hostspec.errors import InvalidRequest
from hostspec.store.layer_options import with_storage_options
from hostspec.values import CreateOptions


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([("size", "8m"), ("inodes", "60")], CreateOptions(size=8 << 20, inodes=60)),
        ([("size", "1.5 GiB")], CreateOptions(size=3 << 29)),
        ([("size", "512")], CreateOptions(size=512)),
        ([("size", "1g"), ("size", "2g")], CreateOptions(size=2 << 30)),
        ([("size", "0"), ("colour", "blue")], CreateOptions(others=(("size", "0"), ("colour", "blue")))),
    ],
)
def test_limits_are_numbers_and_the_rest_is_the_drivers(
    given: list[tuple[str, str]], options: CreateOptions
) -> None:
    assert with_storage_options(CreateOptions(), given) == options


@pytest.mark.parametrize("pair", [("size", "much"), ("size", "-1"), ("inodes", "1k"), ("inodes", "²")])
def test_what_is_no_limit_is_refused_by_name(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=f"{pair[0]}="):
        with_storage_options(CreateOptions(squash=True), [pair])
