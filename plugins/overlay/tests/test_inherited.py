"""What is written without a mount, beside what the kernel makes when owners are changed through one."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hostspec.driver import GraphDriver
from hostspec.errors import IdNotMapped
from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import ACL_DEFAULT, encode_xattr
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import read_tree
from hostspec.testing.random_trees import trees
from hostspec.testing.samples import ANOTHER, MAPPED, SMALL, TOP
from hostspec.testing.tree import Tree, file, symlink
from hostspec.testing.tree import directory as tree_directory
from hostspec.values import LayerRef, ShiftOptions

from .conftest import OpenOverlay

METACOPY = ("mountopt", "metacopy=on")
# What the kernel reads in an upper directory only, where what a pass wrote never is.
NOTES_ABOUT_THE_UPPER = {f"trusted.overlay.{name}" for name in ("origin", "impure", "nlink", "uuid")}
SHOWN_TWICE = "trusted.SGI_ACL_"
BY_MOUNT = ("hostspec_direct_pass", "off")

Facts = dict[str, tuple[object, ...]]


class Both:
    """One home, and two drivers on it: one that writes directly, and one that goes through a mount."""

    def __init__(self, opener: Callable[..., GraphDriver], *options: tuple[str, str]) -> None:
        self.direct = Layers(opener(*options))
        self.by_mount = Layers(opener(*options, BY_MOUNT))

    def copy(self, template: Made, idmap: IdMap, name: str = "copy") -> tuple[Made, Made]:
        """Copy a template in both ways."""
        direct = self.direct.copy(f"{name}-direct", template, idmap)
        return direct, self.by_mount.copy(f"{name}-by-mount", template, idmap)

    def on_disk(self, made: Made) -> Facts:
        """Return what the pass has left below the layer's own difference."""
        layer = f"{self.direct.driver.home}/{made.layer_id}"
        assert os.listdir(f"{layer}/diff") == []
        return {
            "/": facts(f"{layer}/diff1", {}),
            **{f"diff{path}": each for path, each in read_facts(f"{layer}/diff1").items()},
            "names": tuple(sorted(os.listdir(layer))),
        }

    def was_made_by_the_kernel(self, made: Made) -> bool:
        """Tell it by a note that is of no use here."""
        return "trusted.overlay.impure" in os.listxattr(f"{self.direct.driver.home}/{made.layer_id}/diff1")


def read_facts(root: str) -> Facts:
    inodes: dict[int, str] = {}
    found = {}
    for parent, directories, names in os.walk(root):
        for name in sorted([*directories, *names]):
            place = f"{parent}/{name}"
            found[place.removeprefix(root)] = facts(place, inodes)
    return found


def facts(place: str, inodes: dict[int, str]) -> tuple[object, ...]:
    """Return all that is to be the same about an inode; ``inodes`` has the first name of each."""
    inode = os.lstat(place)
    is_file = stat.S_ISREG(inode.st_mode)
    first = inodes.setdefault(inode.st_ino, place) == place
    xattrs = {
        name: os.getxattr(place, name, follow_symlinks=False)
        for name in os.listxattr(place, follow_symlinks=False)
        if name not in NOTES_ABOUT_THE_UPPER and not name.startswith(SHOWN_TWICE)
    }
    if is_file:
        # The kernel gives a file that it links a note of its path; found by its names it is the same file.
        xattrs.pop("trusted.overlay.redirect", None)
        if not inode.st_size:
            xattrs.pop("trusted.overlay.metacopy", None)
    # Directories and symbolic links are accessed by whoever looks at them, files when they are read below.
    accessed = inode.st_atime_ns if is_file and first else 0
    content = b""
    if is_file:
        with open(place, "rb") as opened:
            content = opened.read()
    elif stat.S_ISLNK(inode.st_mode):
        content = os.fsencode(os.readlink(place))
    return (
        inode.st_mode,
        inode.st_uid,
        inode.st_gid,
        inode.st_rdev,
        first,
        accessed,
        inode.st_mtime_ns,
        content,
        xattrs,
    )


@pytest.fixture(
    params=[
        ("ext4", METACOPY),
        ("xfs", ("mountopt", "metacopy=on,index=on")),
        ("ext4", ("mountopt", "")),
        ("xfs", ("mountopt", "")),
    ],
    ids=["stubs-ext4", "stubs-xfs-index", "content-ext4", "content-xfs"],
)
def both(request: pytest.FixtureRequest, open_overlay: OpenOverlay) -> Both:
    """Two drivers on one home, which leave content where it is or copy it."""
    filesystem, option = request.param
    directory = request.getfixturevalue(f"{filesystem}_directory")
    return Both(lambda *more: open_overlay(directory, *more), option)


def write_everywhere(layers: Layers, made: Made) -> Tree:
    """Add to each regular file, through a mount of a layer on top, and return what that layer shows."""
    name = f"{made.layer_id}-written"
    layers.driver.create(name, made.layer)
    with layers.driver.mounted(name, read_only=False) as root:
        for path, entry in made.tree.items():
            if stat.S_ISREG(os.lstat(root + path).st_mode) and entry.content:
                with open(root + path, "ab") as opened:
                    opened.write(b" and more")
                os.utime(root + path, ns=(entry.mtime_ns, entry.mtime_ns))
        shown = read_tree(root, made.idmap)
    layers.driver.commit(name)
    return shown


def test_what_lies_on_disk_is_what_the_kernel_would_have_made(both: Both) -> None:
    template = both.direct.chain().top

    direct, by_mount = both.copy(template, MAPPED)

    assert both.on_disk(direct) == both.on_disk(by_mount)
    both.direct.check(direct)
    both.by_mount.check(by_mount)
    # One of them is what it was compared with.
    assert [both.was_made_by_the_kernel(each) for each in (direct, by_mount)] == [False, True]


@pytest.mark.parametrize("writing", [("hostspec_direct_pass", "on"), BY_MOUNT])
def test_no_file_inherits_an_acl_from_where_the_store_lies(
    writing: tuple[str, str], directory: str, open_overlay: OpenOverlay
) -> None:
    acl = b"u::rwx,u:1000:rwx,g::r-x,m::rwx,o::r-x"
    os.setxattr(directory, ACL_DEFAULT, encode_xattr(ACL_DEFAULT, acl, IdMap()))
    layers = Layers(open_overlay(directory, writing))

    template = layers.chain().top

    layers.check(template)
    layers.check(layers.copy("copy", template, MAPPED))


def test_several_threads_write_the_same(driver: GraphDriver) -> None:
    layers = Layers(driver)
    template = layers.chain().top
    driver.create_from_template("copy", template.layer, None)

    shifted = driver.update_idmap("copy", IdMap(), MAPPED, ShiftOptions(threads=4))
    driver.commit("copy")

    names_of_linked_files = sum(len(group) - 1 for group in TOP.links)
    assert shifted.inodes == len(TOP) - names_of_linked_files
    layers.check(template._replace(layer=LayerRef("copy", MAPPED)))


def test_files_whose_ids_stay_the_same_are_left_where_they_are(both: Both) -> None:
    template = both.direct.make("template", SMALL)
    everything_but_one = IdMap([(0, 0, 1), (1, 100_001, 65_535)], [(0, 0, 1), (1, 100_001, 65_535)])

    direct, by_mount = both.copy(template, everything_but_one)

    shown = both.on_disk(direct).keys()
    assert shown >= both.on_disk(by_mount).keys()
    assert "diff/a/file" in shown
    both.direct.check(direct)


def test_what_is_written_later_meets_the_same_content(both: Both) -> None:
    template = both.direct.chain().top
    direct, by_mount = both.copy(template, MAPPED)

    after_direct = write_everywhere(both.direct, direct)
    after_by_mount = write_everywhere(both.direct, by_mount)

    after_direct.check(after_by_mount)
    assert after_direct["/lib/libc.so.6"].content == TOP["/lib/libc.so.6"].content + b" and more"
    written = [
        Made(each.layer._replace(layer_id=f"{each.layer_id}-written"), each.tree, each)
        for each in (direct, by_mount)
    ]
    assert [str(each) for each in both.direct.changes(written[0], direct)] == [
        str(each) for each in both.direct.changes(written[1], by_mount)
    ]
    # Whatever is not linked is in both diffs the same.
    assert both.direct.diff(written[0], direct) == both.direct.diff(written[1], by_mount)


def test_a_copy_of_a_copy_is_what_the_kernel_would_have_made(both: Both) -> None:
    template = both.direct.chain().top
    direct, by_mount = both.copy(template, MAPPED)

    of_direct = both.direct.copy("second-direct", direct, ANOTHER)
    of_by_mount = both.by_mount.copy("second-by-mount", by_mount, ANOTHER)

    assert both.on_disk(of_direct) == both.on_disk(of_by_mount)
    both.direct.check(of_direct)
    write_everywhere(both.direct, of_direct).check(write_everywhere(both.direct, of_by_mount))


def test_a_second_pass_over_a_layer_is_what_the_kernel_would_have_made(both: Both) -> None:
    template = both.direct.chain().top
    for name, layers in (("direct", both.direct), ("by-mount", both.by_mount)):
        layers.driver.create_from_template(name, template.layer, None)
        layers.driver.update_idmap(name, IdMap(), MAPPED)
        layers.driver.update_idmap(name, MAPPED, ANOTHER)
        layers.driver.commit(name)

    made = [
        Made(template.layer._replace(layer_id=name, idmap=ANOTHER), template.tree, template.parent)
        for name in ("direct", "by-mount")
    ]
    assert both.on_disk(made[0]) == both.on_disk(made[1])
    both.direct.check(made[0])


def test_files_whose_content_is_in_a_lower_layer_are_found_again(
    directory: str, open_overlay: OpenOverlay
) -> None:
    both = Both(lambda *more: open_overlay(directory, *more), METACOPY)
    content = {
        f"/d/{name}": file(name.encode() * 3000, uid=5) for name in ("own", "moved", "linked", "stays")
    }
    base = both.direct.make("base", Tree({"/d": tree_directory(uid=3), **content}))
    driver = both.direct.driver
    driver.create("stubs", base.layer)
    with driver.mounted("stubs", read_only=False) as root:
        os.chown(f"{root}/d/own", 6, 6)
        os.chown(f"{root}/d/moved", 7, 7)
        os.rename(f"{root}/d/moved", f"{root}/elsewhere")
        os.chown(f"{root}/d/linked", 8, 8)
        os.link(f"{root}/d/linked", f"{root}/link")
    driver.commit("stubs")
    shown = both.direct.read(Made(base.layer._replace(layer_id="stubs"), SMALL, base))
    stubs = Made(base.layer._replace(layer_id="stubs"), shown, base)

    direct, by_mount = both.copy(stubs, MAPPED)

    assert both.on_disk(direct) == both.on_disk(by_mount)
    both.direct.check(direct)
    assert shown["/elsewhere"].content == b"moved" * 3000
    write_everywhere(both.direct, direct).check(write_everywhere(both.direct, by_mount))


def test_renamed_directories_are_left_to_the_kernel(directory: str, open_overlay: OpenOverlay) -> None:
    both = Both(lambda *more: open_overlay(directory, *more), ("mountopt", "redirect_dir=on,metacopy=on"))
    tree = Tree({"/d": tree_directory(), "/d/file": file(b"in d" * 2000), "/e": symlink("d")})
    base = both.direct.make("base", tree)
    driver = both.direct.driver
    driver.create("renamed", base.layer)
    with driver.mounted("renamed", read_only=False) as root:
        os.rename(f"{root}/d", f"{root}/new")
    driver.commit("renamed")
    entries = {"/new": tree["/d"], "/new/file": tree["/d/file"]}
    renamed = Made(base.layer._replace(layer_id="renamed"), tree.without("/d").with_entries(entries), base)

    direct, by_mount = both.copy(renamed, MAPPED)

    assert both.was_made_by_the_kernel(direct)
    assert both.on_disk(direct) == both.on_disk(by_mount)
    both.direct.check(direct)


def test_an_opaque_root_hides_nothing_as_little_as_in_a_mount(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    both = Both(lambda *more: open_overlay(ext4_directory, *more), METACOPY)
    base = both.direct.make("base", SMALL)
    top = both.direct.make("top", SMALL.with_entries({"/new": file(b"new")}), base)
    os.setxattr(f"{both.direct.driver.home}/top/diff", "trusted.overlay.opaque", b"y")

    direct, by_mount = both.copy(top, MAPPED)

    assert both.on_disk(direct) == both.on_disk(by_mount)
    both.direct.check(direct)


def test_a_layer_on_more_directories_than_are_opened_at_once_is_left_to_the_kernel(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    both = Both(lambda *more: open_overlay(ext4_directory, *more), METACOPY)
    made, tree = both.direct.make("layer-0", SMALL), SMALL
    for number in range(1, 35):
        tree = tree.with_entries({f"/file-{number}": file(b"%d" % number, uid=number)})
        made = both.direct.make(f"layer-{number}", tree, made)

    direct, by_mount = both.copy(made, MAPPED)

    assert both.on_disk(direct) == both.on_disk(by_mount)
    assert both.was_made_by_the_kernel(direct)
    both.direct.check(direct)


def test_a_tree_too_deep_for_the_files_that_may_be_open_is_left_to_the_kernel(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    layers = Layers(open_overlay(ext4_directory, METACOPY))
    deep = [f"/{'/'.join('abcdefghijklmnop'[:depth])}" for depth in range(1, 17)]
    made, tree = None, Tree({path: tree_directory(uid=number) for number, path in enumerate(deep)})
    for number in range(8):
        # Each layer has a directory of its own on every level.
        tree = tree.with_entries({f"{deep[-1]}/file-{number}": file(b"%d" % number, uid=number)})
        made = layers.make(f"layer-{number}", tree, made)
    assert made is not None
    driver = layers.driver
    driver.create_from_template("copy", made.layer, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 64, hard))
    try:
        # Several would hand the way down over to each other, and close what is behind them.
        driver.update_idmap("copy", IdMap(), MAPPED, ShiftOptions(threads=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    driver.commit("copy")

    assert "trusted.overlay.impure" in os.listxattr(f"{driver.home}/copy/diff1")
    layers.check(made._replace(layer=LayerRef("copy", MAPPED)))


def test_a_pass_that_fails_leaves_the_layer_as_it_was(driver: GraphDriver) -> None:
    layers = Layers(driver)
    base = layers.make("base", SMALL.with_entries({"/z": file(b"z", uid=70_000)}))
    driver.create_from_template("copy", base.layer, None)
    before = sorted(os.walk(f"{driver.home}/../overlay"))

    with pytest.raises(IdNotMapped, match="/z"):
        driver.update_idmap("copy", IdMap(), MAPPED)

    assert sorted(os.walk(f"{driver.home}/../overlay")) == before
    driver.commit("copy")
    layers.check(Made(base.layer._replace(layer_id="copy"), base.tree, base))


def test_times_of_access_of_the_template_stay(directory: str, open_overlay: OpenOverlay) -> None:
    layers = Layers(open_overlay(directory))
    template = layers.make("template", SMALL)
    diff = f"{layers.driver.home}/template/diff"
    places = [diff, f"{diff}/a", f"{diff}/a/file"]
    for place in places:
        os.utime(place, ns=(1, 2))

    layers.copy("copy", template, MAPPED)

    assert [os.stat(place).st_atime_ns for place in places] == [1, 1, 1]


LINKED = [["/p", "/q"]]
OF_TWO_NAMES = Tree({"/p": file(b"one inode"), "/q": file(b"one inode")}, links=LINKED)
OF_TWO_NAMES_LATER = Tree(
    {path: each.changed(mtime_ns=7) for path, each in OF_TWO_NAMES.items()}, links=LINKED
)


@pytest.mark.parametrize("mountopt", ["", "metacopy=on"])
def test_random_trees_become_what_the_kernel_would_have_made(
    mountopt: str, ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    both = Both(lambda *more: open_overlay(ext4_directory, *more), ("mountopt", mountopt))
    numbers = iter(range(1 << 20))

    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(lower=trees(), upper=trees(), recreates=st.booleans())
    @example(lower=OF_TWO_NAMES, upper=OF_TWO_NAMES_LATER, recreates=False)
    def compare(lower: Tree, upper: Tree, recreates: bool) -> None:
        number = next(numbers)
        below = both.direct.make(f"lower-{number}", lower)
        recreated = [path for path in (*lower, *upper) if path != "/"] if recreates else []
        template = both.direct.make(f"upper-{number}", upper, below, recreated=recreated)
        direct, by_mount = both.copy(template, MAPPED, f"copy-{number}")
        assert both.on_disk(direct) == both.on_disk(by_mount)
        both.direct.check(direct)
        both.direct.check(both.direct.copy(f"second-{number}", direct, ANOTHER))

    compare()
