from __future__ import annotations

import base64
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.errors import InvalidRequest
from hostspec.store.format.layout import Layout, big_data_file_name, check_id, drivers_with_records

PLAIN = string.ascii_lowercase + string.digits + "."


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("manifest", "manifest"),
        ("sha256:abc", "=" + base64.b64encode(b"sha256:abc").decode()),
        ("foX1", "=Zm9YMQ=="),
        # The Go library does not look at the last character.
        ("fooX", "fooX"),
        ("-", "-"),
        ("aé", "aé"),
    ],
)
def test_big_data_lies_where_the_go_library_looks_for_it(key: str, name: str) -> None:
    assert big_data_file_name(key) == name


@given(st.text(PLAIN, min_size=3))
def test_a_plain_key_is_its_own_file_name_unless_it_names_a_directory(key: str) -> None:
    assert big_data_file_name(key) == key


@pytest.mark.parametrize("key", ["", ".", "..", "ab/", "???>1", "a\0"])
def test_a_key_without_a_file_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="file name"):
        big_data_file_name(key)


@given(st.text(min_size=1))
def test_no_key_leads_out_of_its_directory(key: str) -> None:
    try:
        name = big_data_file_name(key)
    except InvalidRequest:
        return
    assert "/" not in name
    assert name not in {"", ".", ".."}


@pytest.mark.parametrize("identifier", ["", ".", "..", "a/b", "a\0b", "x" * 250, "\udcff"])
def test_an_id_that_is_no_file_name_is_refused(identifier: str) -> None:
    with pytest.raises(InvalidRequest):
        check_id("layer", identifier)


def test_a_driver_is_known_by_its_records_and_not_by_empty_tables(tmp_path: Path) -> None:
    for driver, content in (("vfs", "[]"), ("overlay", '[{"id":"a"}]')):
        (tmp_path / f"{driver}-layers").mkdir()
        (tmp_path / f"{driver}-layers/layers.json").write_text(content)
    assert drivers_with_records(str(tmp_path)) == {"overlay": str(tmp_path / "overlay-layers/layers.json")}


def test_a_root_that_is_not_there_has_no_driver(tmp_path: Path) -> None:
    assert drivers_with_records(str(tmp_path / "nowhere")) == {}


def test_places_are_those_of_containers_storage() -> None:
    layout = Layout("/graph", "/run/graph", "overlay")
    assert layout.home == "/graph/overlay"
    assert layout.driver_run_root == "/run/graph/overlay"
    assert layout.layers == "/graph/overlay-layers"
    assert layout.images == "/graph/overlay-images"
    assert layout.containers == "/graph/overlay-containers"
    assert layout.mounts == "/run/graph/overlay-layers"
    assert layout.locks == "/run/graph/overlay-locks"
    assert layout.tar_split("abc") == "/graph/overlay-layers/abc.tar-split.gz"
