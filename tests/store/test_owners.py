from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.store.owners import OwnersSeen

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


@given(members, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 3000))
def test_owners_of_all_members_but_whiteouts_are_seen(
    members: list[tuple[str, bytes, int, int, int]], form: int, piece: int
) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for name, kind, size, uid, gid in members:
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid = kind, uid, gid
            member.size = size if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"\1" * size))
    owners = OwnersSeen()
    content = target.getvalue()
    for start in range(0, len(content), piece):
        owners.feed(content[start : start + piece])
    visible = [each for each in members if not each[0].rstrip("/").rpartition("/")[2].startswith(".wh.")]
    assert owners.uids == tuple(sorted({each[3] for each in visible}))
    assert owners.gids == tuple(sorted({each[4] for each in visible}))


@given(st.binary(max_size=5000))
def test_anything_at_all_may_pass(content: bytes) -> None:
    OwnersSeen().feed(content)


def test_sparse_files_with_long_maps_do_not_lead_astray(tmp_path_factory: pytest.TempPathFactory) -> None:
    import subprocess  # noqa: PLC0415 - only here

    directory = tmp_path_factory.mktemp("sparse")
    with (directory / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number << 16)
            file.write(b"data" * 1024)
    (directory / "zlast").write_bytes(b"x")
    for form in ("gnu", "posix"):
        command = ["tar", "-cS", f"--format={form}", "--owner=7", "--group=8", "sparse", "zlast"]
        content = subprocess.run(command, cwd=directory, check=True, capture_output=True).stdout
        owners = OwnersSeen()
        owners.feed(content)
        assert (owners.uids, owners.gids) == ((7,), (8,))
