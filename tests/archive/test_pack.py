"""What is packed can be read by others, and says what it should."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hostspec.archive.changes import compare_trees
from hostspec.archive.comparison import SeenChange
from hostspec.archive.encode import EntryHeader, encode_header
from hostspec.archive.headers import Kind
from hostspec.archive.pack import pack, pack_tree
from hostspec.archive.reader import TarReader
from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import DriverFailed, IdNotMapped
from hostspec.idmap import IdMap
from hostspec.values import Change, ChangeKind
from tests.archive.file_trees import Tree, build, describe, trees
from tests.archive.test_round_trip import directories

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices and give files away")


def packed(root: Path | str, *paths: str, idmap: IdMap | None = None) -> bytes:
    changes = [Change(path, ChangeKind.ADD) for path in paths]
    with pack(str(root), changes, idmap=idmap or IdMap()) as stream:
        return stream.read()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_gnu_tar_unpacks_what_was_packed(tree: Tree) -> None:
    with directories(2) as (source, target):
        build(source, tree)
        with pack_tree(source, idmap=IdMap()) as stream:
            arguments = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-p", "--same-owner"]
            subprocess.run(
                [*arguments, "-C", target, "-xf", "-"], input=stream.read(), check=True, capture_output=True
            )
        # GNU tar never sets these on links and devices.
        assert describe(target) == describe(source)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_the_standard_library_reads_what_was_packed(tree: Tree) -> None:
    with directories(1) as (source,):
        build(source, tree)
        with pack_tree(source, idmap=IdMap()) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            found = {os.fsencode("" if member.name == "." else member.name) for member in tar}
        assert found == set(describe(source))


def test_headers_are_plain_where_that_suffices(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 513)
    os.utime(tmp_path / "file", ns=(0, 5_000_000_000))
    data = packed(tmp_path, "/file")
    assert len(data) == 512 + 1024 + 1024
    assert data[257:265] == b"ustar\x0000"


def test_directories_end_with_a_slash_and_the_root_is_a_dot(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    found = [member.name for member in TarReader(io.BytesIO(packed(tmp_path, "/", "/dir")))]
    assert found == [b"./", b"dir/"]


def test_names_that_mean_something_else_in_a_layer_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".wh.victim").touch()
    assert names(packed(tmp_path, "/.wh.victim")) == []
    assert "would delete" in caplog.text


def test_sockets_are_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert names(packed(tmp_path, "/socket")) == []


def test_what_has_gone_meanwhile_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert names(packed(tmp_path, "/gone", "/gone/too")) == []
    assert "has gone" in caplog.text


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    with pack(str(tmp_path), [Change("/file", ChangeKind.ADD)], idmap=IdMap()) as stream:
        stream.read(2000)
        os.truncate(tmp_path / "file", 100)
        with pytest.raises(DriverFailed, match="shorter"):
            stream.read()


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_what_a_walk_has_seen_of_the_files_makes_no_difference(tree: Tree) -> None:
    with directories(1) as (source,):
        build(source, tree)
        seen = list(compare_trees(source, None, new_map=IdMap(), old_map=IdMap()))
        with pack(source, seen, idmap=IdMap()) as stream:
            with_types = stream.read()
        with pack(source, [Change(path, kind) for path, kind in seen], idmap=IdMap()) as stream:
            assert stream.read() == with_types


@pytest.mark.parametrize("file_type", [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK], ids=["file", "dir", "link"])
def test_a_file_that_has_become_something_else_is_packed_as_what_it_is(
    tmp_path: Path, file_type: int
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("dir")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    paths = ["/dir", "/fifo", "/file", "/link", "/socket"]
    seen = [SeenChange.of(path, ChangeKind.ADD, file_type) for path in paths]
    with pack(str(tmp_path), seen, idmap=IdMap()) as stream:
        assert stream.read() == packed(tmp_path, *paths)


def test_a_tree_of_any_depth_takes_few_descriptors(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(200):
        path /= "d"
        path.mkdir()
    for above in [path, *path.parents][:201]:
        (above / "file").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    with pack_tree(str(tmp_path), idmap=IdMap()) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        found = 0
        for member in tar:
            found += 1
            assert len(os.listdir("/proc/self/fd")) < before + 110, member.name
    assert found == 1 + 200 + 201


def test_an_owner_outside_the_map_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdNotMapped) as caught:
        packed(tmp_path, "/file", idmap=IdMap.parse(["0:1000:10"]))
    assert caught.value.path == "/file"


def test_attributes_that_belong_to_the_machine_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("trusted.overlay.opaque", "user.overlay.opaque", "trusted.kept", "user.kept"):
        os.setxattr(tmp_path / "file", name, b"y")
    (member,) = TarReader(io.BytesIO(packed(tmp_path, "/file")))
    assert member.xattrs == {b"trusted.kept": b"y", b"user.kept": b"y"}


def test_reads_fill_what_they_are_given_except_at_the_end(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(b"x" * number * 100)
    whole = packed(tmp_path, *(f"/{number:02}" for number in range(20)))
    changes = compare_trees(str(tmp_path), None, new_map=IdMap(), old_map=IdMap())
    with pack(str(tmp_path), (each for each in changes if each.path != "/"), idmap=IdMap()) as stream:
        pieces = list(iter(lambda: stream.read(777), b""))
    assert {len(piece) for piece in pieces[:-1]} == {777}
    assert b"".join(pieces) == whole


def test_an_abandoned_stream_closes_everything(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"x" * 5000)
    (tmp_path / "dir/other").write_bytes(b"y" * 5000)
    before = set(os.listdir("/proc/self/fd"))
    stream = pack_tree(str(tmp_path), idmap=IdMap())
    stream.close()
    for size in range(0, 16_000, 500):
        with pack_tree(str(tmp_path), idmap=IdMap()) as abandoned:
            abandoned.read(size)
        assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


def test_names_that_are_no_text_say_so(tmp_path: Path) -> None:
    for name in (b"\xff", "ä".encode()):
        (tmp_path / os.fsdecode(name)).touch()
    assert b"hdrcharset=BINARY" in packed(tmp_path, "/\udcff")
    assert b"hdrcharset" not in packed(tmp_path, "/ä")


def test_hard_links_are_links_in_the_tar(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").hardlink_to(tmp_path / "a")
    kinds = [(m.name, m.kind, m.link) for m in TarReader(io.BytesIO(packed(tmp_path, "/b", "/a", "/c")))]
    assert kinds == [(b"b", Kind.FILE, b""), (b"a", Kind.HARD_LINK, b"b"), (b"c", Kind.HARD_LINK, b"b")]


def test_holes_are_written_as_zeros(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as made:
        made.truncate(1_000_000)
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "/sparse"))) as tar:
        (member,) = tar
        assert not member.issparse()
        assert member.size == 1_000_000


@pytest.mark.parametrize(
    "facts",
    [
        {"size": 9 << 33},
        {"size": (1 << 63) - 1},
        {"uid": 2_097_152, "gid": 4_294_967_294},
        {"mtime_ns": -1},
        {"mtime_ns": -1_500_000_000},
        {"mtime_ns": 1 << 62},
        {"mtime_ns": 123},
        {"name": b"d" * 155 + b"/" + b"n" * 100},
        {"name": b"d" * 156 + b"/" + b"n" * 100},
        {"name": b"d" * 99 + b"/", "kind": Kind.DIRECTORY},
        {"name": b"d" * 100 + b"/", "kind": Kind.DIRECTORY},
        {"name": b"d" * 120 + b"/", "kind": Kind.DIRECTORY},
        {"name": b"/".join([b"d" * 60] * 40)},
        {"name": "ä".encode()},
        {"name": b"\xff" * 101, "link": b"\xfe\n=", "kind": Kind.SYMLINK},
        {"link": b"l" * 100, "kind": Kind.SYMLINK},
        {"link": b"l" * 101, "kind": Kind.SYMLINK},
        {"device": os.makedev(4095, 1048575), "kind": Kind.CHARACTER_DEVICE},
        {"xattrs": {"user.\udcff": bytes(range(256)), "user.b": b""}},
        {"mode": 0o7777},
        {
            "name": b"\xff" * 300,
            "link": b"\xff" * 300,
            "mode": 0o7777,
            "mtime_ns": 10**18 + 1,
            "kind": Kind.SYMLINK,
        },
        {"name": b"\x7f" * 155 + b"/" + b"\x7f" * 100, "link": b"\xff" * 300, "kind": Kind.SYMLINK},
    ],
    ids=str,
)
def test_headers_come_back_as_they_were(facts: dict[str, object]) -> None:
    header = EntryHeader(**{"name": b"name", "kind": Kind.FILE, **facts})  # type: ignore[arg-type]
    member = next(iter(TarReader(io.BytesIO(encode_header(header)))))
    found = EntryHeader(
        name=member.name,
        kind=member.kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        size=member.stored,
        mtime_ns=member.mtime_ns,
        link=member.link,
        device=os.makedev(member.major, member.minor),
        xattrs={os.fsdecode(name): value for name, value in (member.xattrs or {}).items()},
    )
    assert found == header


needs_go = pytest.mark.skipif(
    not shutil.which("containers-storage"), reason="containers-storage is not installed"
)


class GoStore:
    """A store of the Go library's, with its vfs driver."""

    def __init__(self, top: Path) -> None:
        self._options = ["--graph", str(top / "graph"), "--run", str(top / "run"), "--storage-driver", "vfs"]

    def run(self, *arguments: str, data: bytes | None = None) -> bytes:
        program = ["containers-storage", *self._options, *arguments]
        return subprocess.run(program, check=True, capture_output=True, input=data).stdout

    def layer(self, parent: str = "") -> str:
        output = self.run("create-layer", *([parent] if parent else [])).decode()
        return output.split()[0]


@needs_go
def test_the_go_library_unpacks_what_was_packed_and_we_what_it_packs(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(mode=0o755)
    target.mkdir(mode=0o755)
    (source / "dir").mkdir()
    (source / "dir/file").write_bytes(b"x" * 70_000)
    (source / ("n" * 200)).write_text("long")
    (source / "ä").symlink_to("t" * 150)
    (source / "again").hardlink_to(source / "dir/file")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    os.chown(source / "dir", 3_000_000, 4_000_000)
    os.setxattr(source / "dir/file", "user.a", b"\0\xff")
    os.chmod(source / "dir/file", 0o4755)
    for path in [*source.rglob("*"), source]:
        os.utime(path, ns=(10**18 + 5, 10**18 + 5), follow_symlinks=False)
    store = GoStore(tmp_path)
    layer = store.layer()
    data = packed(source, *(f"/{path.relative_to(source)}" for path in sorted(source.rglob("*"))))
    (tmp_path / "layer.tar").write_bytes(data)
    store.run("applydiff", "--file", str(tmp_path / "layer.tar"), layer)
    mounted = store.run("mount", layer).decode().split()[0]
    try:
        by_go = describe(mounted, directory_times=True)
    finally:
        store.run("unmount", layer)
    expected = describe(str(source))
    expected.pop(b"")
    by_go.pop(b"")
    assert by_go == expected
    unpack(
        io.BytesIO(store.run("diff", "-u", layer)), str(target), idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN
    )
    ours = describe(str(target))
    ours.pop(b"")
    assert ours == expected
