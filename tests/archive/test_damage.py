"""A damaged tar is an error of hostspec's, never another one, and never a layer that looks whole."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import DriverFailed, HostspecError, InvalidArchive
from hostspec.idmap import IdMap
from tests.archive.handmade import directory, file, handmade, hard_link, symlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

SAMPLE = handmade(
    directory("dir", pax_headers={"SCHILY.xattr.user.a": "1", "mtime": "1.5"}),
    file("dir/large", b"x" * 3000),
    file("n" * 150, b"y" * 512),
    file("empty", b""),
    symlink("link", "t" * 120),
    hard_link("hard", "dir/large"),
    file("dir/.wh.gone", b""),
).getvalue()
END = len(SAMPLE.rstrip(b"\0"))
END += -END % 512
BEGINNINGS_OF_MEMBERS = 7
END_OF_CONTENT = SAMPLE.index(b"x" * 3000) + 3000


def attempt(data: bytes, form: WhiteoutForm = WhiteoutForm.PLAIN) -> None:
    with tempfile.TemporaryDirectory() as root:
        unpack(io.BytesIO(data), root, idmap=IdMap(), whiteouts=form)


def test_a_tar_cut_off_at_any_block_is_refused_but_between_members() -> None:
    accepted = 0
    for length in range(0, END, 512):
        try:
            attempt(SAMPLE[:length])
            accepted += 1
        except InvalidArchive:
            pass
    assert accepted == BEGINNINGS_OF_MEMBERS


def test_a_tar_cut_off_between_members_is_told(caplog: pytest.LogCaptureFixture) -> None:
    attempt(SAMPLE[:END])
    assert "no end marker" in caplog.text
    caplog.clear()
    attempt(SAMPLE)
    assert caplog.text == ""


@given(
    st.integers(min_value=1, max_value=END - 1).filter(
        lambda length: length % 512 and length != END_OF_CONTENT
    )
)
def test_a_tar_cut_off_within_a_block_is_refused(length: int) -> None:
    with pytest.raises(InvalidArchive):
        attempt(SAMPLE[:length])


def test_a_tar_may_end_without_the_padding_of_its_last_file(caplog: pytest.LogCaptureFixture) -> None:
    attempt(SAMPLE[:END_OF_CONTENT])
    assert "no end marker" in caplog.text


def test_a_tar_cut_off_in_a_file_names_the_file() -> None:
    with pytest.raises(InvalidArchive, match="'dir/large'"):
        attempt(SAMPLE[: SAMPLE.index(b"x" * 3000) + 1000])


@given(
    st.lists(st.tuples(st.integers(0, END - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(list(WhiteoutForm)),
)
def test_flipped_bytes_never_make_another_error(flips: list[tuple[int, int]], form: WhiteoutForm) -> None:
    data = bytearray(SAMPLE)
    for at, value in flips:
        data[at] = value
    with suppress(HostspecError):
        attempt(bytes(data), form)


@given(
    st.integers(0, END // 512 - 1),
    st.integers(0, 511),
    st.integers(0, 255),
    st.sampled_from(list(WhiteoutForm)),
)
def test_flipped_bytes_under_a_right_checksum_never_make_another_error(
    block: int, at: int, value: int, form: WhiteoutForm
) -> None:
    data = bytearray(SAMPLE)
    start = block * 512
    data[start + at] = value
    header = data[start : start + 512]
    header[148:156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    with suppress(HostspecError):
        attempt(bytes(data), form)


@given(st.binary(max_size=3000))
def test_random_bytes_never_make_another_error(data: bytes) -> None:
    with suppress(HostspecError):
        attempt(data)


def test_an_empty_stream_is_an_empty_layer() -> None:
    attempt(b"")


def test_a_root_that_is_missing_is_the_drivers_failure(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(DriverFailed):
        unpack(
            io.BytesIO(SAMPLE),
            os.path.join(tmp_path, "missing"),
            idmap=IdMap(),
            whiteouts=WhiteoutForm.PLAIN,
        )
