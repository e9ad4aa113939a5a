"""Every dialect of tar that images come in."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.archive.byte_source import Trace
from hostspec.archive.member import Member
from hostspec.archive.numbers import nanoseconds, number
from hostspec.archive.pax import format_records, parse_records
from hostspec.archive.reader import TarReader
from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import InvalidArchive
from hostspec.idmap import IdMap
from tests.archive.file_trees import describe
from tests.archive.handmade import Given, directory, file, handmade, hard_link, rewritten, symlink

BLOCK = 512


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, most: int = 700) -> None:
        super().__init__()
        self._stream = io.BytesIO(data)
        self._random = random.Random(7)  # noqa: S311 - no secret
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._random.randrange(1, self._most)))
        buffer[: len(data)] = data
        return len(data)


def members(data: bytes) -> list[Member]:
    return list(TarReader(io.BytesIO(data)))


def only(data: bytes) -> Member:
    (member,) = members(data)
    return member


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_links_and_owners_of_every_length_are_read(form: int) -> None:
    long = "d" * 90 + "/" + "e" * 90
    given = [file("short"), file(long, uid=0o7777777), symlink("link", "t" * 100), directory("dir/")]
    if form != tarfile.USTAR_FORMAT:
        given += [file("n" * 300), symlink("m" * 200, "t" * 3000), hard_link("h" * 101, "n" * 300)]
        given += [file("owner", uid=3_000_000, gid=4_294_967_294), file("\udcff\udc80")]
    found = members(handmade(*given, form=form).getvalue())
    assert [member.text.rstrip("/") for member in found] == [each.name.rstrip("/") for each in given]
    assert [os.fsdecode(member.link) for member in found] == [each.link for each in given]
    assert [(member.uid, member.gid) for member in found] == [
        (each.facts.get("uid", 0), each.facts.get("gid", 0)) for each in given
    ]


def test_records_prevail_over_the_header() -> None:
    records = {
        "path": "real",
        "uid": "7",
        "gid": "8",
        "mtime": "12.345678901",
        "atime": "1",
        "comment": "nothing",
        "SCHILY.xattr.user.a": "1",
    }
    member = only(handmade(file("fake", pax_headers=records)).getvalue())
    assert (member.name, member.uid, member.gid, member.mtime_ns) == (b"real", 7, 8, 12_345_678_901)
    assert member.xattrs == {b"user.a": b"1"}


def test_extended_attributes_are_bytes() -> None:
    value = bytes(range(256))
    data = pax_header({b"SCHILY.xattr.user.\xff=": value}) + header(b"x")
    # A key ends at the first equals sign; that is part of the format.
    assert only(data).xattrs == {b"user.\xff": b"=" + value}


def test_global_records_hold_until_others_replace_them() -> None:
    data = (
        pax_header({b"uid": b"5", b"comment": b"x"}, flag=b"g")
        + header(b"a")
        + pax_header({b"uid": b"6"})
        + header(b"b")
        + pax_header({b"uid": b""}, flag=b"g")
        + header(b"c")
        + bytes(1024)
    )
    assert [(member.name, member.uid) for member in members(data)] == [(b"a", 5), (b"b", 6), (b"c", 0)]


def test_global_records_have_a_bound_that_keys_count_towards() -> None:
    """All of them are looked at for each member, however many headers they came in."""

    def header_with(number: int) -> bytes:
        return pax_header(
            {b"SCHILY.xattr.user.%d.%d" % (number, each): b"" for each in range(500)}, flag=b"g"
        )

    few = header_with(0) + header(b"x")
    assert len(only(few).xattrs or {}) == 500
    many = b"".join(header_with(number) + header(b"x") for number in range(10))
    with pytest.raises(InvalidArchive, match="too many global"):
        members(many)


def test_a_size_beyond_octal_is_read_either_way() -> None:
    size = 9 << 33
    assert first(handmade_header(file("x"), form=tarfile.GNU_FORMAT, size=size)).stored == size
    assert first(handmade_header(file("x"), form=tarfile.PAX_FORMAT, size=size)).stored == size


def test_directories_of_v7_are_files_whose_names_end_with_a_slash() -> None:
    block = rewritten(header(b"dir/"), lambda raw: raw.__setitem__(slice(156, 500), bytes(344)))
    assert only(block).kind == b"5"


def test_a_label_is_no_member() -> None:
    block = rewritten(header(b"label"), lambda raw: raw.__setitem__(156, ord("V")))
    assert [member.name for member in members(block + header(b"x"))] == [b"x"]


def test_checksums_of_signed_bytes_are_accepted() -> None:
    block = bytearray(header(b"\xff\xfe\x80"))
    block[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    assert only(bytes(block)).name == b"\xff\xfe\x80"


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_unpacked_as_it_was(tmp_path: Path, form: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    target.mkdir()
    (source / "dir/file").write_bytes(b"x" * 1000)
    (source / "link").symlink_to("dir/file")
    (source / "again").hardlink_to(source / "dir/file")
    if form not in ("v7", "ustar"):
        (source / ("n" * 120)).write_text("long")
    if form != "v7":
        os.mkfifo(source / "fifo")
    for path in [*source.rglob("*"), source]:
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    gnu_tar("--format", form, "-C", source, "-cf", tmp_path / "tar", ".")
    unpack_file(tmp_path / "tar", target)
    assert describe(str(target)) == describe(str(source))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
    ids=lambda options: options[-1].partition("=")[2],
)
@pytest.mark.parametrize("segments", [0, 1, 3, 4, 5, 40, 200])
@pytest.mark.parametrize("hole_at_end", [False, True])
def test_sparse_files_are_read_in_all_forms(
    tmp_path: Path, options: list[str], segments: int, *, hole_at_end: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with open(source / "sparse", "wb") as made:
        for number in range(segments):
            made.seek((2 * number + 1) * 65536)
            made.write(b"%d" % number * 700)
        made.truncate((2 * segments + 1) * 65536 if hole_at_end else None)
        if not segments and not hole_at_end:
            made.truncate(100_000)
    (source / "zlast").write_text("after")
    gnu_tar(*options, "--sparse", "-C", source, "-cf", tmp_path / "tar", "sparse", "zlast")
    size = unpack_file(tmp_path / "tar", target)
    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (target / "zlast").read_text() == "after"
    assert size == (source / "sparse").stat().st_size + 5
    assert (target / "sparse").stat().st_blocks <= (source / "sparse").stat().st_blocks


def test_a_stream_that_dribbles_gives_the_same() -> None:
    data = handmade(
        file("a" * 150, b"x" * 3000), file("b", b"y" * 511), file("c", b""), symlink("d", "a")
    ).getvalue()

    class Copy(Trace):
        def __init__(self) -> None:
            self.framed = b""
            self.everything = b""
            self.contents = b""

        def framing(self, data: memoryview) -> None:
            self.framed += data
            self.everything += data

        def content(self, data: memoryview) -> None:
            self.contents += data
            self.everything += data

    copy = Copy()
    reader = TarReader(Dribble(data + b"trailing"), trace=copy)  # type: ignore[arg-type]
    assert [member.name for member in reader] == [b"a" * 150, b"b", b"c", b"d"]
    assert copy.everything == data + b"trailing"
    assert copy.contents.endswith(b"x" * 3000 + b"y" * 511)
    assert reader.has_end_marker
    assert reader.consumed == len(data) + 8


def test_a_stream_without_readinto_is_read() -> None:
    class Plain:
        def __init__(self, data: bytes) -> None:
            self._stream = io.BytesIO(data)

        def read(self, size: int) -> bytes:
            return self._stream.read(size)

    data = handmade(file("x", b"1" * 2000)).getvalue()
    assert [member.stored for member in TarReader(Plain(data))] == [2000]  # type: ignore[arg-type]


def test_a_stream_that_shows_views_is_read_without_a_copy() -> None:
    class Shown(Dribble):
        """Each view is good until the next is asked for, and no longer."""

        _last = bytearray()

        def next_view(self) -> memoryview:
            self._last[:] = bytes(len(self._last))
            self._last = bytearray(self.read(700) or b"")
            return memoryview(self._last)

    given = [file("a" * 150, b"x" * 3000), file("b"), file("c", b"y" * 511), file("d", b"z" * 512)]
    data = handmade(*given, form=tarfile.PAX_FORMAT).getvalue()
    for most in (2, 512, 513, 701):
        reader = TarReader(Shown(data + b"trailing", most))  # type: ignore[arg-type]
        found = []
        for member in reader:
            content = b""
            while len(content) < member.stored:
                content += reader.piece(member.stored)
            found.append((member.text, content))
        assert found == [(each.name, each.content) for each in given]
        assert reader.consumed == len(data) + 8


def test_the_stream_is_read_to_its_end() -> None:
    stream = io.BytesIO(handmade(file("x")).getvalue() + bytes(3_000_000))
    assert len(list(TarReader(stream))) == 1
    assert stream.read() == b""


@pytest.mark.parametrize("flag", [b"N", b"M", b"D", b"A", b"z", b"\x80"])
def test_types_that_are_not_known_are_refused_by_name(flag: bytes) -> None:
    block = rewritten(header(b"odd"), lambda raw: raw.__setitem__(slice(156, 157), flag))
    with pytest.raises(InvalidArchive, match=r"'odd'.*type"):
        members(block)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (slice(100, 108), b"0000_644"),
        (slice(108, 116), b"12345678"),
        (slice(116, 124), b"-0000001"),
        (slice(124, 136), b"0x000000010\0"),
        (slice(124, 136), b"\xff" * 12),
        (slice(136, 148), b"abcdefghijk\0"),
        (slice(124, 136), b"1 2         "),
    ],
)
def test_malformed_numbers_are_refused_and_name_the_member(field: slice, value: bytes) -> None:
    block = rewritten(header(b"bad"), lambda raw: raw.__setitem__(field, value))
    with pytest.raises(InvalidArchive, match="'bad'"):
        members(block)


def test_a_wrong_checksum_is_refused() -> None:
    block = bytearray(header(b"x"))
    block[0] ^= 1
    with pytest.raises(InvalidArchive, match="checksum"):
        members(bytes(block))


@pytest.mark.parametrize(
    "data",
    [b"5 a=b\n", b"x a=b\n", b"99 a=b\n", b"6 a=b\n ", b"4 =\n", b"5 ab\n", b"\n", b"0 a=b\n", b"-6 a=b\n"],
)
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArchive):
        list(parse_records(data))


def test_extended_headers_are_bounded() -> None:
    huge = rewritten(
        header(b"x"), lambda raw: raw.__setitem__(slice(124, 157), b"77777777777\0" + bytes(20) + b"x")
    )
    with pytest.raises(InvalidArchive, match="at most"):
        members(huge)
    with pytest.raises(InvalidArchive, match="too many"):
        members(pax_header({b"comment": b"x" * 900_000}) * 6 + header(b"x"))


def test_an_extended_header_at_the_end_is_refused() -> None:
    with pytest.raises(InvalidArchive, match="after an extended header"):
        members(pax_header({b"path": b"x"}) + bytes(1024))


@pytest.mark.parametrize(
    "records",
    [
        {b"GNU.sparse.map": b"0,512", b"GNU.sparse.size": b"100"},
        {b"GNU.sparse.map": b"512,0,0,512", b"GNU.sparse.size": b"10000"},
        {b"GNU.sparse.map": b"0,512,256,0", b"GNU.sparse.size": b"10000"},
        {b"GNU.sparse.map": b"0,512", b"GNU.sparse.size": b"9" * 20},
        {b"GNU.sparse.map": b"0", b"GNU.sparse.size": b"10000"},
        {b"GNU.sparse.map": b"0,-1", b"GNU.sparse.size": b"10000"},
        {b"GNU.sparse.map": b"0,512"},
        {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"},
        {b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"},
        {b"GNU.sparse.map": b"0,1," * 70_000 + b"1,1", b"GNU.sparse.size": b"10000"},
    ],
    ids=str,
)
def test_damaged_sparse_maps_are_refused(records: dict[bytes, bytes]) -> None:
    data = pax_header(records) + header(b"x", size=512) + b"\0" * 512
    with pytest.raises(InvalidArchive, match="sparse"):
        members(data)


@given(st.dictionaries(st.binary(min_size=1).filter(lambda key: b"=" not in key), st.binary(), max_size=5))
def test_records_come_back_as_they_were(records: dict[bytes, bytes]) -> None:
    assert dict(parse_records(format_records(records.items()))) == records


@given(st.integers(min_value=0, max_value=8**7 - 1))
def test_octal_numbers_are_read(value: int) -> None:
    for field in (b"%07o\0" % value, b"%7o " % value, b"%08o" % value, b"%o" % value):
        assert number(field, "number") == value


@given(st.integers(min_value=-(1 << 62), max_value=(1 << 62) - 1))
def test_binary_numbers_are_read(value: int) -> None:
    field = bytearray((value % (1 << 96)).to_bytes(12, "big"))
    field[0] |= 0x80
    assert number(bytes(field), "number") == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", 1_000_000_000),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"0.0000000019", 1),
        (b"-0.0000000011", -2),
        (b"1.", 1_000_000_000),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
    ],
)
def test_times_are_read_to_the_nanosecond(text: bytes, expected: int) -> None:
    assert nanoseconds(text, "time") == expected


@pytest.mark.parametrize(
    "text", [b".5", b"", b"1.2.3", b"1e3", b"--1", b"1_0", b" 1", b"1.x", b"1.000000000x"]
)
def test_times_that_are_none_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidArchive):
        nanoseconds(text, "time")


def header(name: bytes, *, size: int = 0) -> bytes:
    """Return the header of a regular file."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, errors="surrogateescape")


def pax_header(records: dict[bytes, bytes], flag: bytes = b"x") -> bytes:
    data = format_records(records.items())
    block = rewritten(header(b"pax", size=len(data)), lambda raw: raw.__setitem__(slice(156, 157), flag))
    return block + data + bytes(-len(data) % BLOCK)


def handmade_header(given: Given, *, form: Literal[0, 1, 2], size: int) -> bytes:
    info = tarfile.TarInfo(given.name)
    info.size = size
    return info.tobuf(form)


def first(data: bytes) -> Member:
    return next(iter(TarReader(io.BytesIO(data))))


def gnu_tar(*arguments: object) -> None:
    subprocess.run(["tar", *map(str, arguments)], check=True)


def unpack_file(path: Path, target: Path) -> int:
    with open(path, "rb") as stream:
        return unpack(stream, str(target), idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN)
