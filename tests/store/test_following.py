"""What is learnt of a tar while it passes."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.store.following import Follower

KINDS = [
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
]

members = st.lists(
    st.tuples(
        st.sampled_from(["a", "b" * 150, "ü/" * 60, ".wh.a", "d/.wh.b", "d/.wh..wh..opq", "x.wh.y", "d/"]),
        st.sampled_from(KINDS),
        st.sampled_from([0, 1, 511, 512, 513, 70_000]),
        st.sampled_from([0, 1, 1000, 2_097_151, 2_097_152, 4_294_967_294]),
        st.sampled_from([0, 5, 2_097_152]),
    )
)


def followed(content: bytes) -> Follower:
    follower = Follower(io.BytesIO())
    follower.follow(io.BytesIO(content))
    return follower


@given(members, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_owners_of_all_members_but_whiteouts_are_seen(
    members: list[tuple[str, bytes, int, int, int]], form: int
) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for name, kind, size, uid, gid in members:
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid = kind, uid, gid
            member.size = size if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"\1" * size))
    follower = followed(target.getvalue())
    visible = [each for each in members if not each[0].rstrip("/").rpartition("/")[2].startswith(".wh.")]
    assert follower.uids == tuple(sorted({each[3] for each in visible}))
    assert follower.gids == tuple(sorted({each[4] for each in visible}))


@given(st.binary(max_size=5000))
def test_anything_at_all_may_pass_and_is_read_to_its_end(content: bytes) -> None:
    stream = io.BytesIO(content)
    Follower(io.BytesIO()).follow(stream)
    assert stream.read() == b""


def test_what_cannot_be_understood_leaves_no_tar_split() -> None:
    assert not followed(b"no tar" * 1000).has_tar_split


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_files_with_long_maps_do_not_lead_astray(form: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number << 16)
            file.write(b"data" * 1024)
    (tmp_path / "zlast").write_bytes(b"x")
    command = ["tar", "-cS", f"--format={form}", "--owner=7", "--group=8", "sparse", "zlast"]
    content = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    follower = followed(content)
    assert (follower.uids, follower.gids) == ((7,), (8,))
    assert follower.has_tar_split
