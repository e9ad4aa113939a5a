"""Whatever a tar says, nothing outside the root changes: it is refused, or the result is safe."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import DriverFailed, IdNotMapped, InvalidArchive
from hostspec.idmap import IdMap
from tests.archive.file_trees import describe
from tests.archive.handmade import Given, directory, file, handmade, hard_link, symlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices and give files away")

FORMS = pytest.mark.parametrize("form", list(WhiteoutForm))


class Place:
    """A root to unpack into, with something worth protecting beside it."""

    def __init__(self, top: Path) -> None:
        self.outside = top / "outside"
        (self.outside / "deep").mkdir(parents=True)
        (self.outside / "secret").write_text("secret")
        (self.outside / "deep" / "file").write_text("file")
        self.root = top / "root"
        self.root.mkdir()
        os.utime(self.outside, ns=(1, 1))
        self.before = describe(str(self.outside))

    def unpack(
        self, *members: Given, form: WhiteoutForm = WhiteoutForm.PLAIN, idmap: IdMap | None = None
    ) -> None:
        unpack(handmade(*members), str(self.root), idmap=idmap or IdMap(), whiteouts=form)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
        assert describe(str(made.outside)) == made.before
        assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
        assert not os.path.exists("/hostspec-hostile")
    finally:
        # Some of these trees are too deep for pytest to delete, which would end this and later runs.
        subprocess.run(["rm", "-rf", str(made.root)], check=True)


@FORMS
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "../outside/secret", "..", "a/../.."])
def test_a_name_that_leads_out_is_refused(place: Place, form: WhiteoutForm, name: str) -> None:
    with pytest.raises(InvalidArchive, match="leads out"):
        place.unpack(file(name), form=form)


@FORMS
@pytest.mark.parametrize("target", ["../outside/secret", "/../outside/secret", "x/../../outside/secret"])
def test_a_hard_link_that_leads_out_is_refused(place: Place, form: WhiteoutForm, target: str) -> None:
    with pytest.raises(InvalidArchive, match="leads out"):
        place.unpack(hard_link("link", target), form=form)


@FORMS
def test_absolute_names_and_targets_are_taken_under_the_root(place: Place, form: WhiteoutForm) -> None:
    place.unpack(file("/hostspec-hostile/x"), hard_link("/y", "/hostspec-hostile/x"), form=form)
    assert (place.root / "y").samefile(place.root / "hostspec-hostile/x")


@FORMS
@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../../..{outside}"])
def test_a_planted_link_does_not_lead_out(place: Place, form: WhiteoutForm, target: str) -> None:
    target = target.format(outside=place.outside)
    try:
        place.unpack(symlink("door", target), file("door/secret", b"changed"), file("door/new"), form=form)
    except InvalidArchive as error:
        assert "link" in str(error)  # noqa: PT017 - either answer will do


@FORMS
def test_a_planted_link_to_a_directory_inside_is_followed(place: Place, form: WhiteoutForm) -> None:
    place.unpack(
        directory("real"), symlink("a", "/real"), symlink("b", "a/../a"), file("b/x", b"1"), form=form
    )
    assert (place.root / "real/x").read_bytes() == b"1"


@FORMS
def test_a_hard_link_through_a_planted_link_does_not_lead_out(place: Place, form: WhiteoutForm) -> None:
    with pytest.raises(InvalidArchive, match="not there"):
        place.unpack(symlink("door", str(place.outside)), hard_link("x", "door/secret"), form=form)


@FORMS
def test_a_hard_link_to_a_symbolic_link_is_the_link_itself(place: Place, form: WhiteoutForm) -> None:
    place.unpack(
        symlink("door", str(place.outside / "secret")), hard_link("x", "door"), file("x", b"new"), form=form
    )
    assert (place.root / "x").read_bytes() == b"new"


@FORMS
def test_a_link_that_takes_the_place_of_an_open_directory_is_not_followed_out(
    place: Place, form: WhiteoutForm
) -> None:
    """The directory was found before; its name leads elsewhere now."""
    with pytest.raises(InvalidArchive):
        place.unpack(
            file("a/b/one"),
            symlink("a", str(place.outside)),
            file("a/b/two"),
            file("a/secret", b"changed"),
            form=form,
        )
    assert not (place.root / "a" / "b").exists()


@FORMS
def test_a_link_swapped_in_for_a_link_is_resolved_anew(place: Place, form: WhiteoutForm) -> None:
    place.unpack(
        directory("one"),
        directory("two"),
        symlink("way", "one"),
        file("way/first"),
        symlink("way", "two"),
        file("way/second"),
        form=form,
    )
    assert os.listdir(place.root / "one") == ["first"]
    assert os.listdir(place.root / "two") == ["second"]


def test_a_link_swapped_in_for_a_new_device_changes_no_mode_outside(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by somebody who works in the same tree, right after the device was made."""
    make_node = os.mknod

    def make_and_swap(path: bytes, mode: int, device: int, *, dir_fd: int) -> None:
        make_node(path, mode, device, dir_fd=dir_fd)
        os.unlink(path, dir_fd=dir_fd)
        os.symlink(place.outside / "secret", path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", make_and_swap)
    with pytest.raises(DriverFailed):
        place.unpack(file("fifo", b"", type=tarfile.FIFOTYPE, mode=0o4777))


@pytest.mark.parametrize("marker", ["door/.wh.secret", "door/.wh..wh..opq", "door/deep/.wh.file"])
def test_a_whiteout_through_a_planted_link_deletes_nothing_outside(place: Place, marker: str) -> None:
    with pytest.raises(InvalidArchive, match="leads nowhere"):
        place.unpack(symlink("door", str(place.outside)), file(marker, b""))


@FORMS
@pytest.mark.parametrize("marker", [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh.."])
def test_a_whiteout_of_no_name_is_refused(place: Place, form: WhiteoutForm, marker: str) -> None:
    (place.root / "a").mkdir()
    (place.root / "kept").touch()
    with pytest.raises(InvalidArchive, match="names no file"):
        place.unpack(file(marker, b""), form=form)
    assert (place.root / "kept").exists()


@FORMS
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("name", [".", "./", "/", "a/.."])
def test_the_root_can_only_be_a_directory(place: Place, form: WhiteoutForm, kind: bytes, name: str) -> None:
    with pytest.raises(InvalidArchive, match="root of a layer"):
        place.unpack(Given(name, kind, link="/etc"), form=form)


@FORMS
def test_overlay_attributes_are_never_taken_from_an_image(place: Place, form: WhiteoutForm) -> None:
    records = {
        f"SCHILY.xattr.{prefix}.overlay.{name}": "y"
        for prefix in ("trusted", "user")
        for name in ("opaque", "redirect", "metacopy", "whiteout", "origin")
    }
    place.unpack(
        directory("d", pax_headers={**records, "SCHILY.xattr.user.kept": "1"}),
        file("f", pax_headers=records),
        directory("./", pax_headers=records),
        form=form,
    )
    assert os.listxattr(place.root / "d") == ["user.kept"]
    assert os.listxattr(place.root / "f") == []
    assert os.listxattr(place.root) == []


@pytest.mark.parametrize("form", [WhiteoutForm.OVERLAY, WhiteoutForm.USER_OVERLAY])
def test_a_null_device_in_a_tar_hides_a_name_only_where_it_stands(place: Place, form: WhiteoutForm) -> None:
    device = Given("d/x", tarfile.CHRTYPE, facts={"devmajor": 0, "devminor": 0, "mode": 0o666, "uid": 5})
    place.unpack(file("d/x"), device, form=form)
    assert (place.root / "d/x").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"uid": 0xFFFF_FFFF}, "32-bit"),
        ({"gid": 1 << 32}, "32-bit"),
        ({"uid": -1}, "32-bit"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_owners_that_are_none_are_refused(
    place: Place, facts: dict[str, int], message: str, form: int
) -> None:
    if facts.get("uid") == -1 and form == tarfile.PAX_FORMAT:
        message = "decimal"
    with pytest.raises(InvalidArchive, match=message):
        unpack(
            handmade(file("x")._replace(facts=facts), form=form),
            str(place.root),
            idmap=IdMap(),
            whiteouts=WhiteoutForm.PLAIN,
        )


def test_an_owner_outside_the_map_names_the_file(place: Place) -> None:
    with pytest.raises(IdNotMapped) as caught:
        place.unpack(file("a/b", uid=70_000), idmap=IdMap.parse(["0:1000:65536"]))
    assert caught.value.path == "a/b"
    assert caught.value.number == 70_000


@FORMS
@pytest.mark.parametrize("name", ["n" * 256, "/".join(["d" * 200] * 25)])
def test_a_name_that_is_too_long_is_refused(place: Place, form: WhiteoutForm, name: str) -> None:
    with pytest.raises(InvalidArchive, match="too long"):
        place.unpack(file(name), form=form)


@FORMS
@pytest.mark.parametrize("key", ["path", "linkpath"])
def test_a_nul_in_a_name_is_refused(place: Place, form: WhiteoutForm, key: str) -> None:
    given = symlink("x", "y")._replace(facts={"pax_headers": {key: "a\0b"}})
    with pytest.raises(InvalidArchive, match="NUL"):
        place.unpack(given, form=form)


@FORMS
def test_links_in_a_circle_are_refused(place: Place, form: WhiteoutForm) -> None:
    with pytest.raises(InvalidArchive):
        place.unpack(symlink("a", "b"), symlink("b", "a"), file("a/x"), form=form)


@FORMS
def test_a_file_is_no_directory(place: Place, form: WhiteoutForm) -> None:
    with pytest.raises(InvalidArchive, match="no directory"):
        place.unpack(file("a"), file("a/b"), form=form)


@FORMS
def test_a_hard_link_to_a_directory_is_refused(place: Place, form: WhiteoutForm) -> None:
    with pytest.raises(InvalidArchive, match="directory"):
        place.unpack(directory("d"), hard_link("x", "d"), form=form)


@FORMS
def test_a_hard_link_to_itself_keeps_the_file(place: Place, form: WhiteoutForm) -> None:
    place.unpack(file("a", b"1"), hard_link("a", "./a"), form=form)
    assert (place.root / "a").read_bytes() == b"1"


@FORMS
def test_a_hard_link_in_place_of_the_directory_of_its_target_is_refused(
    place: Place, form: WhiteoutForm
) -> None:
    with pytest.raises(InvalidArchive, match="not there"):
        place.unpack(file("d/x"), hard_link("d", "d/x"), form=form)


@FORMS
def test_a_directory_far_deeper_than_descriptors_can_be_had_is_replaced(
    place: Place, form: WhiteoutForm
) -> None:
    deep = "/".join(["d"] * 1900)
    place.unpack(file(deep + "/x"), file("d", b"now a file"), form=form)
    assert (place.root / "d").read_bytes() == b"now a file"


def test_an_opaque_marker_empties_a_directory_of_any_depth(place: Place) -> None:
    deep = "top/" + "/".join(["d"] * 1900)
    place.unpack(directory(deep))
    place.unpack(file("top/d/d/kept"), file("top/.wh..wh..opq", b""))
    assert [path.relative_to(place.root) for path in place.root.rglob("*")] == [
        Path("top"),
        Path("top/d"),
        Path("top/d/d"),
        Path("top/d/d/kept"),
    ]


def test_an_unreadable_mode_is_no_obstacle(place: Place) -> None:
    place.unpack(directory("d", mode=0), file("d/x", mode=0, pax_headers={"SCHILY.xattr.user.a": "1"}))
    assert os.getxattr(place.root / "d/x", "user.a") == b"1"


@pytest.mark.parametrize("value", ["", "x", "\1", "\2\0\0\0x"])
def test_an_acl_that_is_none_is_refused(place: Place, value: str) -> None:
    with pytest.raises(InvalidArchive, match="posix_acl_access"):
        place.unpack(file("x", pax_headers={"SCHILY.xattr.system.posix_acl_access": value or "\0"}))


@pytest.mark.parametrize("name", ["security.capability", "user.", "trusted."])
def test_an_attribute_that_the_kernel_finds_invalid_is_refused(place: Place, name: str) -> None:
    with pytest.raises(InvalidArchive, match="valid"):
        place.unpack(file("x", pax_headers={f"SCHILY.xattr.{name}": "nonsense"}))


@pytest.mark.skipif(os.geteuid() != 0, reason="others are excused")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_user_attribute_where_no_file_system_has_any_is_named(place: Place, kind: bytes) -> None:
    facts = {"devmajor": 1, "devminor": 3, "pax_headers": {"SCHILY.xattr.user.a": "1"}}
    with pytest.raises(InvalidArchive, match=r"only files and directories .* user\.a") as caught:
        place.unpack(directory("d"), Given("d/x", kind, link="somewhere", facts=facts))
    assert caught.value.member == "d/x"


@pytest.mark.parametrize(
    ("name", "value"), [("user." + 300 * "n", "v"), ("user.large", 70_000 * "v")], ids=["name", "value"]
)
def test_an_attribute_longer_than_any_can_be_is_refused_by_name(place: Place, name: str, value: str) -> None:
    with pytest.raises(InvalidArchive, match=rf"'x': its extended attribute {name[:200]}.*too long"):
        place.unpack(file("x", pax_headers={f"SCHILY.xattr.{name}": value}))


def test_a_member_without_a_name_is_refused(place: Place) -> None:
    stream = handmade(file("x", b""))
    data = bytearray(stream.getvalue())
    data[0:1] = b"\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(InvalidArchive, match="no name"):
        unpack(io.BytesIO(data), str(place.root), idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN)
