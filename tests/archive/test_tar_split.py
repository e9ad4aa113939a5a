"""The tar that a layer came from is put together again, bit by bit."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import tracemalloc
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hostspec.archive.original_tar as original_tar_module
from hostspec.archive.original_tar import original_tar
from hostspec.archive.reader import TarReader
from hostspec.archive.tar_split import File, TarSplitWriter, checksum, read_tar_split
from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import HostspecError, InvalidArchive
from hostspec.idmap import IdMap
from hostspec.testing.requirements import require_or_skip
from tests.archive.handmade import Given, directory, file, handmade, hard_link, symlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

some = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])

SPARSE_FORMS = {
    "old GNU": ["--format=gnu"],
    "PAX 0.0": ["--format=posix", "--sparse-version=0.0"],
    "PAX 0.1": ["--format=posix", "--sparse-version=0.1"],
    "PAX 1.0": ["--format=posix", "--sparse-version=1.0"],
}


def split(tar: bytes) -> tuple[bytes | None, TarSplitWriter]:
    """Return the tar-split file of a tar, or ``None``."""
    target = io.BytesIO()
    writer = TarSplitWriter(target)
    for member in TarReader(io.BytesIO(tar), trace=writer):
        writer.member(member)
    return (target.getvalue() if writer.finish() else None), writer


def splittable(tar: bytes) -> bytes:
    found, writer = split(tar)
    assert found is not None, writer.gave_up
    return found


def unpacked(tar: bytes, root: Path | str) -> None:
    unpack(io.BytesIO(tar), str(root), idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN)


def lines(tar_split: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.decompress(tar_split).splitlines()]


def assembled(tar_split: bytes, root: Path | str, *, size: int | None = None) -> bytes:
    with original_tar(io.BytesIO(tar_split), str(root), size=size) as stream:
        return stream.read()


names = st.one_of(
    st.text("ab/.é", min_size=1, max_size=8),
    st.sampled_from(
        ["a" * 150, "d/" * 60 + "f", 'q"\\<&>\u2028\x7f\n', "\udcff\udc80", "😀", ".wh.x", "./a"]
    ),
).filter(lambda name: name.strip("/.") and ".." not in name)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    members: list[Given] = []
    for name in draw(st.lists(names, max_size=6)):
        kind = draw(st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]))
        size = draw(st.sampled_from([0, 1, 511, 512, 513, 70_000])) if kind == tarfile.REGTYPE else 0
        members.append(
            Given(
                name,
                kind,
                random.Random(len(members)).randbytes(size),  # noqa: S311 - content
                draw(st.sampled_from(["a", "b", "b/a", "nowhere"])) if kind == tarfile.SYMTYPE else "",
                {"mode": 0o755, "uid": draw(st.sampled_from([0, 5, 3_000_000])), "mtime": draw(times)},
            )
        )
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    tar = handmade(*members, form=form).getvalue()
    end = tar.rstrip(b"\0")
    whole = tar[: -(-len(end) // 512) * 512 if end else 0]
    return whole + bytes(draw(st.sampled_from([0, 512, 1024, 1025, 10_240]))) + draw(st.binary(max_size=3))


times = st.one_of(st.integers(0, 2**31), st.just(1.5))


@some
@given(tars(), st.integers(1, 100_000), st.sampled_from([0, 4096, original_tar_module._MOST_KEPT]))
def test_any_tar_comes_back_bit_by_bit(tar: bytes, piece: int, most_kept: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        try:
            unpacked(tar, root)
        except HostspecError:
            return  # no layer
        tar_split, writer = split(tar)
        if tar_split is None:
            assert "twice" in (writer.gave_up or "")
            return
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(original_tar_module, "_MOST_KEPT", most_kept)
                stream = original_tar(io.BytesIO(tar_split), root, size=len(tar))
            with stream:
                pieces = list(iter(lambda: stream.read(piece), b""))
        except InvalidArchive:
            assert writer.needs_proof
            return
    assert b"".join(pieces) == tar
    assert {len(each) for each in pieces[:-1]} <= {piece}


@pytest.mark.parametrize("name", ["plain", "ünicode", 'quo"te', "back\\slash", "\x01", "\u2028"])
@pytest.mark.parametrize("size", [1, 10**18, 10**19])
def test_lines_of_files_are_read_as_the_json_that_they_are(name: str, size: int) -> None:
    fields = {"type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAE=", "position": 0}
    for line in (json.dumps(fields), json.dumps(fields, ensure_ascii=False, separators=(",", ":"))):
        tar_split = gzip.compress(line.encode() + b"\n")
        assert list(read_tar_split(io.BytesIO(tar_split))) == [File(name.encode(), size, b"\0" * 7 + b"\1")]
    empty = {"type": 1, "name": name, "payload": None, "position": 0}
    for line in (json.dumps(empty), json.dumps(empty, ensure_ascii=False, separators=(",", ":"))):
        assert list(read_tar_split(io.BytesIO(gzip.compress(line.encode() + b"\n")))) == []


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_member_comes_back(form: int, tmp_path: Path) -> None:
    tar = handmade(
        directory("./"),
        directory("./dir"),
        file("./dir/file", b"x" * 1000),
        file("dir/empty", b""),
        file("/absolute", b"1"),
        hard_link("link", "dir/file"),
        symlink("sym", "dir/file"),
        file("dir/./odd//../../dir//name/.", b"2"),
        Given("null", tarfile.CHRTYPE, facts={"devmajor": 1, "devminor": 3}),
        Given("fifo", tarfile.FIFOTYPE),
        file("dir/.wh.gone", b""),
        file("dir/.wh..wh..opq", b""),
        form=form,
    ).getvalue()
    unpacked(tar, tmp_path)
    assert assembled(splittable(tar), tmp_path, size=len(tar)) == tar


def test_global_headers_come_back(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c"}
    ) as tar:
        info = tarfile.TarInfo("file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    unpacked(stream.getvalue(), tmp_path)
    assert assembled(splittable(stream.getvalue()), tmp_path) == stream.getvalue()


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_sparse_files_come_back(form: str, tmp_path: Path) -> None:
    tar = sparse_tar(form, tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    unpacked(tar, root)
    assert assembled(splittable(tar), root, size=len(tar)) == tar


def sparse_tar(form: str, top: Path) -> bytes:
    source = top / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as target:
        for number in range(60):
            target.seek(number << 16)
            target.write(b"data" * 1024)
    (source / "zlast").write_bytes(b"x")
    command = ["tar", "-cS", *SPARSE_FORMS[form], "sparse", "zlast"]
    return subprocess.run(command, cwd=source, check=True, capture_output=True).stdout


def test_contents_that_unpacking_passes_over_come_back(tmp_path: Path) -> None:
    tar = handmade(
        file(".wh.gone", b"whiteouts are empty as a rule"),
        file(".wh..wh.plnk/1", b"book-keeping of aufs" * 100),
        Given("label", b"V", b"volume"),
        file("file"),
    ).getvalue()
    unpacked(tar, tmp_path)
    assert assembled(splittable(tar), tmp_path) == tar


def test_a_directory_may_come_twice_and_a_file_after_an_empty_one(tmp_path: Path) -> None:
    tar = handmade(
        directory("dir"), file("file", b""), directory("./dir//"), file("/file", b"now"), file("last")
    ).getvalue()
    unpacked(tar, tmp_path)
    tar_split = splittable(tar)
    assert assembled(tar_split, tmp_path) == tar
    found = [entry["name"] for entry in lines(tar_split) if entry["type"] == 1]
    assert found == ["dir/", "file", "last"]  # the Go library refuses a name that comes twice


@pytest.mark.parametrize("second", ["file", "./file", "/file", "dir/../file", "file/"])
def test_a_content_that_another_takes_the_place_of_leaves_no_tar_split(second: str) -> None:
    tar = handmade(file("file", b"first"), file(second, b"second"), file("last")).getvalue()
    tar_split, writer = split(tar)
    assert tar_split is None
    assert writer.gave_up is not None
    assert "twice" in writer.gave_up


def test_only_so_much_content_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostspec.archive.content_files.MAX_EMBEDDED", 1000)
    assert split(handmade(file(".wh.a", b"1" * 1000), file("b", b"2" * 2000)).getvalue())[0] is not None
    tar_split, writer = split(handmade(file(".wh.a", b"1" * 600), file(".wh.b", b"1" * 600)).getvalue())
    assert tar_split is None
    assert writer.gave_up == "more than 1000 bytes lie in no file"


def test_lines_are_those_of_the_go_library() -> None:
    tar = handmade(directory("d"), file('d/ü"<', b"123456789"), file("\udcff", b"x"), form=tarfile.GNU_FORMAT)
    content = tar.getvalue()
    found = lines(splittable(content))
    assert [entry.pop("position") for entry in found] == list(range(7))
    segments = [entry for entry in found if entry["type"] == 2]
    assert all(set(entry) == {"type", "payload"} for entry in segments)
    assert [entry for entry in found if entry["type"] == 1] == [
        {"type": 1, "name": "d/", "payload": None},
        {"type": 1, "name": 'd/ü"<', "size": 9, "payload": "uQlWx3WkEAE="},  # the check value of the CRC
        {"type": 1, "name_raw": "/w==", "size": 1, "payload": "IxAAAAAAAAA="},
    ]


def test_the_checksum_is_crc_64_iso_piece_by_piece() -> None:
    assert checksum(b"123456789") == 0xB90956C775A41001
    assert checksum(memoryview(b"6789"), checksum(bytearray(b"12345"))) == 0xB90956C775A41001
    assert checksum(b"") == 0


def test_megabytes_after_the_last_member_take_little_memory(tmp_path: Path) -> None:
    tar = handmade(file("file")).getvalue()
    padding = 64 << 20
    target = io.BytesIO()
    tracemalloc.start()
    try:
        writer = TarSplitWriter(target)
        for member in TarReader(cast("BinaryIO", Padded(tar, padding)), trace=writer):
            writer.member(member)
        assert writer.finish()
        unpacked(tar, tmp_path)
        target.seek(0)
        size = 0
        with original_tar(target, str(tmp_path), size=len(tar) + padding) as stream:
            while piece := stream.read(1 << 20):
                size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == len(tar) + padding
    assert peak < 24 << 20


class Padded(io.RawIOBase):
    """A stream with many zeros at its end."""

    def __init__(self, start: bytes, zeros: int) -> None:
        self._start = io.BytesIO(start)
        self._zeros = zeros

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._start.readinto(buffer)
        if not count:
            count = min(len(buffer), self._zeros)
            buffer[:count] = bytes(count)
            self._zeros -= count
        return count


@pytest.fixture
def layer(tmp_path: Path) -> tuple[bytes, Path]:
    """A tar-split file, and the directory that its tar is in."""
    tar = handmade(
        directory("dir"), file("dir/first", b"1" * 5000), file("dir/second", b"2" * 5000)
    ).getvalue()
    root = tmp_path / "root"
    root.mkdir()
    unpacked(tar, root)
    return splittable(tar), root


def test_a_file_of_another_size_is_found_before_anything_is_read(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    (root / "dir/second").write_bytes(b"2" * 5001)
    with pytest.raises(InvalidArchive, match="dir/second"):
        original_tar(io.BytesIO(tar_split), str(root))


def test_a_missing_file_is_found_before_anything_is_read(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    shutil.rmtree(root / "dir")
    with pytest.raises(InvalidArchive, match="dir/first"):
        original_tar(io.BytesIO(tar_split), str(root))


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_file_any_more_is_found_before_anything_is_read(
    kind: str, layer: tuple[bytes, Path]
) -> None:
    tar_split, root = layer
    (root / "dir/second").rename(root / "elsewhere")
    match kind:
        case "symlink":
            (root / "dir/second").symlink_to("../elsewhere")
        case "fifo":
            os.mkfifo(root / "dir/second")
        case "directory":
            (root / "dir/second").mkdir()
    with pytest.raises(InvalidArchive, match="dir/second"):
        original_tar(io.BytesIO(tar_split), str(root))


def test_a_file_changed_in_place_is_found_before_its_end(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    (root / "dir/second").write_bytes(b"2" * 4999 + b"3")
    stream = original_tar(io.BytesIO(tar_split), str(root))
    came: list[bytes] = []
    with stream, pytest.raises(InvalidArchive, match="dir/second"):
        came.extend(iter(lambda: stream.read(512), b""))
    assert b"1" * 5000 in b"".join(came)
    assert b"3" not in came[-1]


def test_a_file_that_shrinks_while_it_is_read_is_found(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    stream = original_tar(io.BytesIO(tar_split), str(root))
    os.truncate(root / "dir/second", 3)
    with stream, pytest.raises(InvalidArchive, match="dir/second"):
        stream.read()


def test_links_never_lead_out_of_the_root(layer: tuple[bytes, Path], tmp_path: Path) -> None:
    tar_split, root = layer
    (root / "dir").rename(tmp_path / "outside")
    (root / "dir").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidArchive, match="dir/first"):
        original_tar(io.BytesIO(tar_split), str(root))


def test_names_never_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    crc = "AAAAAAAAAAA="
    for name in ("../secret", "/../secret", "x/../../secret", "..", "."):
        line = json.dumps({"type": 1, "name": name, "size": 6, "payload": crc, "position": 0})
        with pytest.raises(InvalidArchive):
            original_tar(io.BytesIO(gzip.compress(line.encode())), str(root))


def test_a_tar_split_file_of_another_tar_is_refused(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    with pytest.raises(InvalidArchive, match="bytes, not of 7"):
        original_tar(io.BytesIO(tar_split), str(root), size=7)


def test_a_tar_split_file_that_was_cut_off_is_refused(layer: tuple[bytes, Path]) -> None:
    tar_split, root = layer
    for size in (1, 20, len(tar_split) // 2, len(tar_split) - 1):
        with pytest.raises(InvalidArchive):
            original_tar(io.BytesIO(tar_split[:size]), str(root))


@pytest.mark.parametrize(
    "line",
    [
        b"nothing",
        b"[]",
        b"7",
        b'{"type":3,"payload":null}',
        b'{"type":2}',
        b'{"type":2,"payload":"',
        b'{"type":2,"payload":"!!!!","position":0}',
        b'{"payload":"AAAA","type":2,"size":[]',
        b'{"type":1,"name":7,"size":5,"payload":""}',
        b'{"type":1,"name":"a","size":-5,"payload":""}',
        b'{"type":1,"name":"a","size":true,"payload":""}',
        b'{"type":1,"name":"a","size":"5","payload":""}',
        b'{"type":1,"name":"\\ud800","size":5,"payload":""}',
        b'{"type":1,"name":"a\\u0000b","size":5,"payload":""}',
        b"[" * 100_000,
    ],
)
def test_lines_that_make_no_sense_are_refused(line: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive):
        original_tar(io.BytesIO(gzip.compress(line + b"\n")), str(tmp_path))


def test_fields_may_stand_in_any_order() -> None:
    line = b'{"position":0,"payload":"QUJD","type":2,"later":"versions"}\n'
    [segment] = read_tar_split(io.BytesIO(gzip.compress(line)))
    assert segment == (b"ABC",)


class GoStore:
    """A store of the Go library's, with its vfs driver and one empty layer."""

    def __init__(self, top: Path) -> None:
        if shutil.which("containers-storage") is None:
            require_or_skip("containers-storage", "is not installed; Debian's package has the same name")
        self._top = top
        self.layer = self.run("create-layer").decode().split()[0]
        self.tar_split = top / "graph/vfs-layers" / f"{self.layer}.tar-split.gz"
        self.root = top / "graph/vfs/dir" / self.layer

    def run(self, command: str, *arguments: str) -> bytes:
        places = ["--graph", str(self._top / "graph"), "--run", str(self._top / "run")]
        program = ["containers-storage", command, *places, "--storage-driver", "vfs", *arguments]
        # The machine's own storage.conf may have options for another driver.
        environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
        return subprocess.run(program, check=True, capture_output=True, env=environment).stdout

    def apply(self, tar: bytes) -> None:
        (self._top / "layer.tar").write_bytes(tar)
        self.run("applydiff", "--file", str(self._top / "layer.tar"), self.layer)

    def diff(self) -> bytes:
        return self.run("diff", "-u", self.layer)


@pytest.fixture
def go_store(tmp_path: Path) -> GoStore:
    top = tmp_path / "go"
    top.mkdir()
    return GoStore(top)


def many_members() -> bytes:
    content = random.Random(0).randbytes(300_000)  # noqa: S311 - content
    return handmade(
        directory("dir"),
        *(file(f"dir/{size}", content[:size]) for size in (0, 1, 511, 512, 513, 299_999)),
        file("n" * 200, b"long"),
        file('ü"<&\u2028', b"odd"),
        file("\udcff\udcfe", b"no text"),
        hard_link("dir/again", "dir/513"),
        symlink("sym", "t" * 200),
        file("dir/.wh.gone", b""),
        form=tarfile.GNU_FORMAT,
    ).getvalue() + bytes(1_500_000)


def test_the_go_library_writes_what_we_read(go_store: GoStore) -> None:
    tar = many_members()
    go_store.apply(tar)
    by_go = go_store.tar_split.read_bytes()
    assert assembled(by_go, go_store.root, size=len(tar)) == tar


def test_the_go_library_reads_what_we_write(go_store: GoStore) -> None:
    tar = many_members()
    go_store.apply(tar)
    go_store.tar_split.write_bytes(splittable(tar))
    assert go_store.diff() == tar


def test_entries_are_those_that_the_go_library_writes(go_store: GoStore) -> None:
    tar = many_members()
    go_store.apply(tar)
    by_go, ours = lines(go_store.tar_split.read_bytes()), lines(splittable(tar))
    end = max(number for number, entry in enumerate(by_go) if entry["type"] == 1) + 1
    assert ours[:end] == by_go[:end]  # zeros after the last member are cut at other places


@pytest.mark.parametrize("form", ["PAX 0.0", "PAX 0.1", "PAX 1.0"])
def test_the_go_library_gives_back_a_sparse_file_by_our_tar_split_only(
    form: str, go_store: GoStore, tmp_path: Path
) -> None:
    tar = sparse_tar(form, tmp_path)
    go_store.apply(tar)
    by_go = io.BytesIO(go_store.tar_split.read_bytes())
    with pytest.raises(InvalidArchive, match="bytes, not of"):
        original_tar(by_go, str(go_store.root), size=len(tar))
    assert go_store.diff() != tar
    go_store.tar_split.write_bytes(splittable(tar))
    assert go_store.diff() == tar


def test_the_go_library_reads_a_tar_split_of_a_layer_it_would_refuse(go_store: GoStore) -> None:
    tar = handmade(directory("dir"), file("dir/file"), directory("dir"), file("last")).getvalue()
    with pytest.raises(subprocess.CalledProcessError):
        go_store.apply(tar)
    go_store.apply(handmade(file("dir/file"), file("last")).getvalue())
    go_store.tar_split.write_bytes(splittable(tar))
    assert go_store.diff() == tar
