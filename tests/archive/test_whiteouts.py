"""What deletions do, in each form they have on disk."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import pytest

from hostspec.archive.changes import compare_trees
from hostspec.archive.unpack import unpack
from hostspec.archive.upper import inspect_upper, upper_changes
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import InvalidArchive
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import mount, unmount
from hostspec.values import Change, ChangeKind
from tests.archive.handmade import Given, directory, file, handmade, hard_link, symlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount an overlay")

FORMS = pytest.mark.parametrize("form", list(WhiteoutForm))


class Layers:
    """A lower tree, and layers applied to it in one of the forms."""

    def __init__(self, top: Path, form: WhiteoutForm) -> None:
        self.form = form
        self.lower, self.upper, self.work, self.merged = (
            top / n for n in ("lower", "upper", "work", "merged")
        )
        for path in (self.lower, self.upper, self.work, self.merged):
            path.mkdir()
        self.fill(self.lower)

    @staticmethod
    def fill(root: Path) -> None:
        (root / "dir/sub").mkdir(parents=True)
        (root / "dir/one").write_text("1")
        (root / "dir/sub/two").write_text("2")
        (root / "file").write_text("file")
        os.chmod(root / "dir", 0o2750)
        os.chown(root / "dir", 7, 8)
        os.setxattr(root / "dir", "user.lower", b"1")
        os.utime(root / "dir", ns=(5, 5))

    def apply(self, *members: Given) -> None:
        """Apply a layer."""
        root = self.lower if self.form is WhiteoutForm.PLAIN else self.upper
        lowers = [] if self.form is WhiteoutForm.PLAIN else [str(self.lower)]
        unpack(handmade(*members), str(root), idmap=IdMap(), whiteouts=self.form, lowers=lowers)

    @contextmanager
    def seen(self) -> Iterator[Path]:
        """Show what a container sees."""
        if self.form is WhiteoutForm.PLAIN:
            yield self.lower
            return
        options = f"lowerdir={self.lower},upperdir={self.upper},workdir={self.work}"
        if self.form is WhiteoutForm.USER_OVERLAY:
            options += ",userxattr"
        mount("overlay", str(self.merged), "overlay", 0, options)
        try:
            yield self.merged
        finally:
            unmount(str(self.merged))

    @contextmanager
    def over(self, upper: Path, *lowers: Path) -> Iterator[Path]:
        """Mount an upper directory over others, so that only what carries content is copied up whole."""
        shutil.rmtree(self.work)
        self.work.mkdir()
        below = ":".join(map(str, lowers))
        options = f"metacopy=on,redirect_dir=on,lowerdir={below},upperdir={upper},workdir={self.work}"
        mount("overlay", str(self.merged), "overlay", 0, options)
        try:
            yield self.merged
        finally:
            unmount(str(self.merged))

    def names(self) -> list[str]:
        """Return all paths that a container sees."""
        with self.seen() as root:
            return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture(params=list(WhiteoutForm), ids=lambda form: form.value)
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> Layers:
    return Layers(tmp_path, request.param)


def test_a_whiteout_deletes_a_file(layers: Layers) -> None:
    layers.apply(file("dir/.wh.one", b""), file(".wh.file", b""))
    assert layers.names() == ["dir", "dir/sub", "dir/sub/two"]


def test_a_whiteout_deletes_a_directory(layers: Layers) -> None:
    layers.apply(file(".wh.dir", b""))
    assert layers.names() == ["file"]


def test_a_whiteout_of_what_is_not_there_does_nothing_that_can_be_seen(layers: Layers) -> None:
    layers.apply(file(".wh.nothing", b""))
    assert layers.names() == ["dir", "dir/one", "dir/sub", "dir/sub/two", "file"]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_an_opaque_marker_keeps_what_its_own_layer_has_whatever_the_order(
    layers: Layers, order: tuple[int, ...]
) -> None:
    members = [file("dir/.wh..wh..opq", b""), file("dir/new"), file("dir/sub/newer")]
    layers.apply(*(members[at] for at in order))
    assert layers.names() == ["dir", "dir/new", "dir/sub", "dir/sub/newer", "file"]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_whiteout_keeps_what_its_own_layer_has_whatever_the_order(
    layers: Layers, order: tuple[int, ...]
) -> None:
    members = [file(".wh.dir", b""), directory("dir"), file("dir/new")]
    layers.apply(*(members[at] for at in order))
    assert layers.names() == ["dir", "dir/new", "file"]


def test_a_whiteout_and_a_directory_the_tar_does_not_mention(layers: Layers) -> None:
    layers.apply(file(".wh.dir", b""), file("dir/new"))
    assert layers.names() == ["dir", "dir/new", "file"]


def test_an_opaque_root_hides_everything_below(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.PLAIN)
    layers.apply(file("new"), file(".wh..wh..opq", b""))
    assert layers.names() == ["new"]


def test_book_keeping_of_aufs_is_passed_over(layers: Layers) -> None:
    before = layers.names()
    layers.apply(
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/42.1"),
        file(".wh..wh.aufs"),
        directory(".wh..wh.orph"),
        file("dir/.wh..wh.whatever"),
    )
    assert layers.names() == before


def test_a_file_takes_the_place_of_a_directory_and_the_other_way_round(layers: Layers) -> None:
    layers.apply(file("dir", b"now a file"), directory("file"), file("file/x"))
    assert layers.names() == ["dir", "file", "file/x"]
    with layers.seen() as root:
        assert (root / "dir").read_text() == "now a file"


def test_a_directory_that_takes_the_place_of_a_file_of_its_own_layer_shows_nothing_of_the_layers_below(
    layers: Layers,
) -> None:
    layers.apply(file("dir"), directory("dir"), file("dir/new"))
    assert layers.names() == ["dir", "dir/new", "file"]


def test_a_link_takes_the_place_of_a_directory(layers: Layers) -> None:
    layers.apply(symlink("dir", "file"))
    with layers.seen() as root:
        assert os.readlink(root / "dir") == "file"


def test_a_hard_link_leads_to_a_file_of_the_layers_below(layers: Layers) -> None:
    os.setxattr(layers.lower / "file", "user.a", b"1")
    os.chown(layers.lower / "file", 3, 4)
    os.utime(layers.lower / "file", ns=(9, 123_456_789))
    layers.apply(hard_link("dir/link", "file"))
    with layers.seen() as root:
        status = os.stat(root / "dir/link")
        assert (root / "dir/link").read_text() == "file"
        assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (3, 4, 123_456_789)
        assert os.getxattr(root / "dir/link", "user.a") == b"1"


def test_a_hard_link_to_what_is_deleted_is_refused(layers: Layers) -> None:
    with pytest.raises(InvalidArchive, match="not there"):
        layers.apply(file(".wh.file", b""), hard_link("link", "file"))


@pytest.mark.parametrize("marker", [".wh.dir", "dir/.wh..wh..opq", "dir/.wh.sub"])
def test_a_hard_link_to_what_is_deleted_with_its_directory_is_refused(layers: Layers, marker: str) -> None:
    with pytest.raises(InvalidArchive, match="not there"):
        layers.apply(file(marker, b""), hard_link("link", "dir/sub/two"))


def test_a_directory_that_was_deleted_does_not_look_as_below(layers: Layers) -> None:
    os.chmod(layers.lower / "dir/sub", 0o700)
    layers.apply(file("dir/.wh..wh..opq", b""), file("dir/sub/new"))
    with layers.seen() as root:
        assert stat.S_IMODE(os.stat(root / "dir/sub").st_mode) == 0o755


def test_a_directory_that_the_tar_does_not_mention_looks_as_below(layers: Layers) -> None:
    layers.apply(file("dir/new"))
    with layers.seen() as root:
        status = os.stat(root / "dir")
        assert stat.S_IMODE(status.st_mode) == 0o2750
        assert (status.st_uid, status.st_gid) == (7, 8)
        assert os.getxattr(root / "dir", "user.lower") == b"1"
        assert os.stat(root / "dir/new").st_gid == 0


def test_a_directory_that_is_nowhere_belongs_to_the_containers_root(tmp_path: Path) -> None:
    unpack(
        handmade(file("a/b/c")),
        str(tmp_path),
        idmap=IdMap.parse(["0:1000:10"], ["0:2000:10"]),
        whiteouts=WhiteoutForm.OVERLAY,
    )
    for name in ("a", "a/b"):
        status = os.stat(tmp_path / name)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 1000, 2000)


def test_a_directory_loses_the_attributes_that_the_tar_does_not_give_it(layers: Layers) -> None:
    layers.apply(directory("dir", mode=0o700, uid=1, gid=2, mtime=77))
    with layers.seen() as root:
        status = os.stat(root / "dir")
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 1, 2)
        assert status.st_mtime == 77
        assert "user.lower" not in os.listxattr(root / "dir")


def test_a_default_acl_is_not_inherited_by_what_the_tar_brings(layers: Layers) -> None:
    user = 5
    entries = ((1, 0xFFFF_FFFF), (2, user), (4, 0xFFFF_FFFF), (0x10, 0xFFFF_FFFF), (0x20, 0xFFFF_FFFF))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, number) for tag, number in entries)
    os.setxattr(layers.lower / "dir", "system.posix_acl_default", acl)
    layers.apply(
        file("dir/new", mode=0o640),
        directory("dir/newer", mode=0o710),
        file("dir/sub/new", mode=0o640),
        Given("dir/fifo", tarfile.FIFOTYPE, facts={"mode": 0o640}),
        Given("dir/null", tarfile.CHRTYPE, facts={"mode": 0o640, "devmajor": 1, "devminor": 3}),
    )
    with layers.seen() as root:
        files = [(f"dir/{name}", 0o640) for name in ("new", "sub/new", "fifo", "null")]
        for name, mode in (*files, ("dir/newer", 0o710)):
            assert [key for key in os.listxattr(root / name) if "acl" in key] == []
            assert stat.S_IMODE(os.stat(root / name).st_mode) == mode


@pytest.mark.parametrize("form", [WhiteoutForm.OVERLAY, WhiteoutForm.USER_OVERLAY])
def test_whiteouts_on_disk_are_what_overlayfs_makes(tmp_path: Path, form: WhiteoutForm) -> None:
    layers = Layers(tmp_path, form)
    layers.apply(file(".wh.file", b""), file("dir/.wh..wh..opq", b""))
    status = os.lstat(layers.upper / "file")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(layers.upper / "dir", form.xattr_prefix + "opaque") == b"y"


def test_a_null_device_in_a_tar_is_a_whiteout_in_an_overlay_and_a_device_elsewhere(layers: Layers) -> None:
    layers.apply(Given("file", tarfile.CHRTYPE, facts={"devmajor": 0, "devminor": 0}))
    assert ("file" in layers.names()) == (layers.form is WhiteoutForm.PLAIN)


def test_what_the_kernel_writes_into_an_upper_directory_is_read_alike(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    with layers.seen() as root:
        (root / "file").unlink()
        (root / "dir/sub/two").unlink()
        (root / "dir/sub").rmdir()
        (root / "dir/sub").mkdir()
        (root / "dir/sub/three").touch()
        (root / "dir/one").write_text("2")
    changes = [str(each) for each in upper_changes(str(layers.upper), [str(layers.lower)], form=layers.form)]
    assert changes == [
        "Modify /dir",
        "Modify /dir/one",
        "Modify /dir/sub",
        "Add /dir/sub/three",
        "Delete /dir/sub/two",
        "Delete /file",
    ]


def test_what_lies_below_an_opaque_directory_is_read_as_the_mount_shows_it(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    layers.apply(file("dir/.wh..wh..opq", b""), file("dir/sub/new"))
    by_walk = list(upper_changes(str(layers.upper), [str(layers.lower)], form=layers.form))
    with layers.seen() as root:
        shown = compare_trees(str(root), str(layers.lower), new_map=IdMap(), old_map=IdMap())
        assert [each for each in by_walk if each.path != "/"] == [each for each in shown if each.path != "/"]
    assert Change("/dir/sub/two", ChangeKind.DELETE) in by_walk


def test_a_directory_that_takes_the_place_of_a_link_is_not_compared_with_what_the_link_led_to(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "usr/lib/sub/deeper").mkdir(parents=True)
    (old / "usr/lib/sub/file").touch()
    (old / "lib").symlink_to("usr/lib")
    (old / "loop").symlink_to("loop")
    shutil.copytree(old, new, symlinks=True)
    for name in ("lib", "loop"):
        (new / name).unlink()
        (new / name / "sub/deeper").mkdir(parents=True)
    os.chmod(new / "usr/lib/sub/file", 0o600)  # after both, so that comparing goes on

    changes = [str(each) for each in compare_trees(str(new), str(old), new_map=IdMap(), old_map=IdMap())]

    replaced = [
        f"{kind} /{name}{path}"
        for name in ("lib", "loop")
        for kind, path in (("Modify", ""), ("Add", "/sub"), ("Add", "/sub/deeper"))
    ]
    assert changes == [
        *replaced,
        "Modify /usr",
        "Modify /usr/lib",
        "Modify /usr/lib/sub",
        "Modify /usr/lib/sub/file",
    ]


def test_content_that_changed_alone_is_seen_in_an_upper_directory(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    before = os.stat(layers.lower / "file")
    with layers.seen() as root:
        (root / "file").write_text("elif")
        os.utime(root / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
    changes = [str(each) for each in upper_changes(str(layers.upper), [str(layers.lower)], form=layers.form)]
    assert changes == ["Modify /file"]


def test_a_file_copied_up_unchanged_is_no_change(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    with layers.seen() as root, open(root / "dir/one", "r+b"):
        pass
    assert (layers.upper / "dir/one").exists()
    assert list(upper_changes(str(layers.upper), [str(layers.lower)], form=layers.form)) == []


def test_what_is_copied_up_from_a_stub_is_compared_with_the_content_further_below(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    bottom = tmp_path / "bottom"
    bottom.mkdir()
    for name in ("same", "zeros", "moved", "over"):
        (bottom / name).write_text("content")
        os.utime(bottom / name, ns=(1, 1))
    with layers.over(layers.upper, layers.lower, bottom) as root:
        # Stubs, as an ownership pass leaves them.
        for name in ("same", "zeros", "moved"):
            os.chown(root / name, 5, 5)
    stubs, upper = tmp_path / "stubs", tmp_path / "container"
    layers.upper.rename(stubs)
    upper.mkdir()
    with layers.over(upper, stubs, layers.lower, bottom) as root:
        with open(root / "same", "r+b"):
            pass
        (root / "zeros").write_bytes(bytes(len("content")))
        os.utime(root / "zeros", ns=(1, 1))
        for owner in (6, 0):
            os.chown(root / "moved", owner, owner)
        (root / "moved").rename(root / "over")
    assert os.getxattr(upper / "over", "trusted.overlay.redirect")

    lowers = [str(each) for each in (stubs, layers.lower, bottom)]
    changes = [str(each) for each in upper_changes(str(upper), lowers, form=layers.form)]

    assert changes == ["Delete /moved", "Modify /over", "Modify /zeros"]


def test_stubs_and_renamed_directories_are_found_out(tmp_path: Path) -> None:
    layers = Layers(tmp_path, WhiteoutForm.OVERLAY)
    assert inspect_upper(str(layers.upper), form=layers.form) == (False, False)
    options = (
        f"metacopy=on,redirect_dir=on,lowerdir={layers.lower},upperdir={layers.upper},workdir={layers.work}"
    )
    mount("overlay", str(layers.merged), "overlay", 0, options)
    try:
        os.chown(layers.merged / "file", 5, 5)
        assert inspect_upper(str(layers.upper), form=layers.form) == (False, True)
        (layers.merged / "dir").rename(layers.merged / "moved")
    finally:
        unmount(str(layers.merged))
    assert inspect_upper(str(layers.upper), form=layers.form).has_redirects
