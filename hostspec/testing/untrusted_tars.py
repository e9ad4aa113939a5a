"""Layer tars as they come from elsewhere: unusual, broken and hostile."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import HostspecError, InvalidArchive
from hostspec.testing.layer_tars import layer_tar
from hostspec.testing.layers import Layers
from hostspec.testing.on_disk import count_files
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import MAPPED, SMALL
from hostspec.testing.tree import Entry, Tree, directory, file, symlink

__all__ = ["UntrustedTars"]

Member = tuple[str, bytes, str | bytes]
"""Name, type, and the target of a link or the content of a file."""


class UntrustedTars(DriverFixtures):
    """Whatever a tar says, ``apply_diff`` does what the image specification says, or refuses."""

    def test_an_empty_tar_changes_nothing(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)

        layers.check(layers.apply("above", bytes(1_024), SMALL, below))

    def test_an_opaque_marker_hides_what_is_below_wherever_it_stands(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)
        packed = _tar([_directory("a"), _file("a/new", b"new"), _file("a/.wh..wh..opq")])
        expected = SMALL.without("/a").with_entries({"/a": directory(mtime_ns=0), "/a/new": _plain(b"new")})

        layers.check(layers.apply("above", packed, expected, below))

    def test_directories_that_the_tar_leaves_out_are_made(self, layers: Layers) -> None:
        made = layers.apply("made", _tar([_file("p/q/file", b"deep")]), Tree({}))

        found = layers.read(made)
        assert list(found) == ["/", "/p", "/p/q", "/p/q/file"]
        assert found["/p/q/file"].content == b"deep"

    def test_the_last_of_several_members_of_one_name_counts(self, layers: Layers) -> None:
        packed = _tar(
            [_file("twice", b"first"), ("twice", tarfile.SYMTYPE, "there"), _file("twice", b"last")]
        )

        assert layers.read(layers.apply("made", packed, Tree({})))["/twice"].content == b"last"

    def test_a_hard_link_may_lead_to_a_file_of_a_layer_below(self, layers: Layers) -> None:
        below = layers.make("below", SMALL, idmap=MAPPED)

        above = layers.apply("above", _tar([("c", tarfile.LNKTYPE, "b")]), SMALL, below)

        # Whether it is still one inode with the file below is the driver's affair.
        found = layers.read(above)
        assert found["/c"] == found["/b"] == SMALL["/b"]

    def test_absolute_names_lie_in_the_layer(self, layers: Layers) -> None:
        made = layers.apply("made", _tar([_directory("/a"), _file("/a/file", b"inside")]), Tree({}))

        assert layers.read(made)["/a/file"].content == b"inside"

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT], ids=["gnu", "ustar"])
    def test_older_forms_of_tar_are_understood(self, layers: Layers, form: int) -> None:
        long_name = "/".join("n" * 40 for _ in range(4 if form == tarfile.USTAR_FORMAT else 8))

        made = layers.apply("made", _tar([_file(long_name, b"long")], form), Tree({}))

        assert layers.read(made)[f"/{long_name}"].content == b"long"

    @pytest.mark.usefixtures("privileged")
    @pytest.mark.parametrize("cut", [700, 2_000, 3_000], ids=["in-a-header", "in-content", "near-the-end"])
    def test_a_truncated_tar_is_refused(self, driver: GraphDriver, cut: int) -> None:
        whole = layer_tar(None, Tree({"/file": file(b"x" * 4_000, uid=1), "/more": file(b"y" * 4_000)}))
        left = []
        for _ in range(2):
            driver.create("cut")
            with pytest.raises(InvalidArchive):
                driver.apply_diff("cut", io.BytesIO(whole[: 512 + cut]))
            driver.remove("cut")
            driver.reclaim()
            assert not driver.exists("cut")
            left.append(count_files(driver.home))

        assert left[1] == left[0]

    def test_bytes_that_are_no_tar_are_refused(self, driver: GraphDriver) -> None:
        driver.create("nonsense")

        with pytest.raises(InvalidArchive):
            driver.apply_diff("nonsense", io.BytesIO(b"not a tar archive. " * 100))

    @pytest.mark.parametrize(
        "attack", ["dots", "absolute", "symlink", "symlink-parent", "hard-link", "whiteout"]
    )
    def test_a_hostile_tar_touches_nothing_outside_the_layer(
        self, driver: GraphDriver, tmp_path: os.PathLike[str], attack: str
    ) -> None:
        outside = os.fspath(tmp_path)
        victim = os.path.join(outside, "victim")
        with open(victim, "wb") as opened:
            opened.write(b"untouched")
        driver.create("hostile")

        try:
            driver.apply_diff("hostile", io.BytesIO(_tar(_escaping(attack, outside))))
        except HostspecError:
            driver.remove("hostile")
        else:
            driver.commit("hostile")

        with open(victim, "rb") as opened:
            assert opened.read() == b"untouched"
        assert (os.listdir(outside), os.lstat(victim).st_nlink) == (["victim"], 1)
        assert not os.path.lexists("/hostspec-was-here")

    @pytest.mark.parametrize("member", ["way/victim", "way/.wh.victim"], ids=["file", "whiteout"])
    def test_a_link_of_a_layer_below_leads_no_tar_outside(
        self, layers: Layers, tmp_path: os.PathLike[str], member: str
    ) -> None:
        outside = os.fspath(tmp_path)
        victim = os.path.join(outside, "victim")
        with open(victim, "wb") as opened:
            opened.write(b"untouched")
        below = layers.make("below", Tree({"/way": symlink(outside)}))

        with suppress(HostspecError):
            layers.apply("above", _tar([_file(member, b"broken")]), Tree({}), below)

        with open(victim, "rb") as opened:
            assert opened.read() == b"untouched"
        layers.check(below)


_ESCAPES: Final = {
    "dots": [("../../../../../../../../..{outside}/victim", tarfile.REGTYPE, "")],
    "absolute": [("{outside}/victim", tarfile.REGTYPE, ""), ("/hostspec-was-here", tarfile.REGTYPE, "")],
    "symlink": [("way", tarfile.SYMTYPE, "{outside}/victim"), ("way", tarfile.REGTYPE, "")],
    "symlink-parent": [("way", tarfile.SYMTYPE, "{outside}"), ("way/victim", tarfile.REGTYPE, "")],
    "hard-link": [("stolen", tarfile.LNKTYPE, "{outside}/victim"), ("stolen", tarfile.REGTYPE, "")],
    "whiteout": [("way", tarfile.SYMTYPE, "{outside}"), ("way/.wh.victim", tarfile.REGTYPE, "")],
}


def _escaping(attack: str, outside: str) -> list[Member]:
    return [
        (name.format(outside=outside), kind, target.format(outside=outside) or b"broken")
        for name, kind, target in _ESCAPES[attack]
    ]


def _file(name: str, content: bytes = b"") -> Member:
    return name, tarfile.REGTYPE, content


def _directory(name: str) -> Member:
    return name, tarfile.DIRTYPE, b""


def _plain(content: bytes) -> Entry:
    """Return what a member made by ``_file`` is unpacked to."""
    return file(content, mtime_ns=0)


def _tar(members: Sequence[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, payload in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if isinstance(payload, str):
                member.linkname = payload
                archive.addfile(member)
            else:
                member.size = len(payload)
                archive.addfile(member, io.BytesIO(payload))
    return buffer.getvalue()
