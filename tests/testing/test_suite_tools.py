"""What the suite looks with sees everything: trees in memory, on disk and in tars."""

from __future__ import annotations

import ast
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

import hostspec.testing
from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import ACL_ACCESS, CAPABILITY, decode_xattr, encode_xattr
from hostspec.testing.layer_tars import layer_tar, member_names, with_layer
from hostspec.testing.on_disk import change_tree, make_tree, read_times, read_tree
from hostspec.testing.random_trees import trees
from hostspec.testing.requirements import skip_by_capability, skip_by_probe
from hostspec.testing.samples import BOTTOM, MAPPED, MAPS, MIDDLE, SMALL, TOP, TOP_RECREATES, UNMAPPED
from hostspec.testing.tree import Entry, Tree, directory, file, symlink

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to several users, which only root may")
every_map = pytest.mark.parametrize("idmap", MAPS.values(), ids=MAPS)


# On disk


@as_root
@settings(max_examples=40)
@given(older=trees(), newer=trees())
def test_what_is_made_and_changed_on_disk_is_read_back(older: Tree, newer: Tree) -> None:
    with tempfile.TemporaryDirectory() as root:
        make_tree(root, older, MAPPED)
        read_tree(root, MAPPED).check(older)

        change_tree(root, older, newer, MAPPED)
        read_tree(root, MAPPED).check(newer)


@as_root
@every_map
def test_the_samples_are_read_back_under_every_map(tmp_path: os.PathLike[str], idmap: IdMap) -> None:
    root = os.fspath(tmp_path)
    make_tree(root, BOTTOM, idmap)
    change_tree(root, BOTTOM, MIDDLE, idmap)
    change_tree(root, MIDDLE, TOP, idmap, recreated=TOP_RECREATES)

    read_tree(root, idmap).check(TOP)


@as_root
def test_owners_outside_the_map_are_seen_as_such(tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    make_tree(root, Tree({"/file": file(uid=1_000)}), UNMAPPED)

    assert read_tree(root, MAPPED)["/file"].uid == -1 - 1_000


@as_root
def test_an_inode_that_did_not_change_is_not_touched(tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    make_tree(root, SMALL, MAPPED)
    before = os.lstat(f"{root}/a/file").st_ctime_ns

    change_tree(root, SMALL, SMALL.without("/b"), MAPPED)

    assert os.lstat(f"{root}/a/file").st_ctime_ns == before


# In tars


@settings(max_examples=60)
@given(older=trees(), newer=trees())
def test_a_layer_tar_turns_one_tree_into_the_other(older: Tree, newer: Tree) -> None:
    layer = layer_tar(older, newer)
    # A layer says nothing of directories of which only the time changed, nor of links among what did not.
    expected = Tree(
        {
            path: older[path]
            if path != "/"
            and path in older
            and not entry.is_changed_from(older[path])
            and path not in _told(layer)
            else entry
            for path, entry in newer.items()
        }
    )
    found = with_layer(older, layer)

    Tree(dict(found.items())).check(expected)


def test_an_opaque_directory_shows_nothing_of_what_was_there() -> None:
    layer = layer_tar(MIDDLE, TOP, opaque=TOP_RECREATES)

    assert "lib/old/.wh..wh..opq" in member_names(layer)
    assert "lib/old/.wh.one" not in member_names(layer)
    with_layer(MIDDLE, layer).check(TOP)


def test_a_whiteout_of_what_is_not_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="whites out what is not there"):
        with_layer(SMALL, layer_tar(BOTTOM, BOTTOM.without("/x")))


def _told(layer: bytes) -> set[str]:
    return {f"/{name.strip('/')}" for name in member_names(layer)}


# In memory


@given(older=trees(), newer=trees())
def test_changes_name_each_path_that_differs_once_and_in_order(older: Tree, newer: Tree) -> None:
    changes = newer.changes_from(older)

    paths = [change.path for change in changes]
    assert len(paths) == len(set(paths))
    assert paths == sorted(paths, key=lambda path: path.split("/"))
    assert all(path.rpartition("/")[0] in {"", *paths} for path in paths)


@given(tree=trees())
def test_a_tree_has_no_changes_to_itself(tree: Tree) -> None:
    assert tree.changes_from(tree) == []
    assert tree.differences(tree) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (SMALL.without("/b"), "'/b' is missing"),
        (SMALL.with_entries({"/new": file()}), "'/new' is there, and should not be"),
        (SMALL.with_entries({"/a": directory(mode=0o4700)}), "'/a': mode is 4700, expected 0755"),
        (SMALL.with_entries({"/a": directory(uid=-1_001)}), "host ID 1000, which is outside the map"),
        (SMALL.with_entries({"/link": symlink("b", uid=5, gid=6)}), "content is b'b', expected b'a/file'"),
        (
            SMALL.with_entries({"/b": directory(mode=0o600, uid=1, gid=2)}),
            "kind is a directory, expected a file",
        ),
        (Tree(dict(SMALL.items()), links=[("/b", "/a/other")]), "['/a/other', '/b'] are one inode"),
    ],
)
def test_a_difference_is_said_in_words(found: Tree, told: str) -> None:
    with pytest.raises(AssertionError) as failure:
        found.check(SMALL)

    assert told in str(failure.value)


def test_hard_links_that_are_split_are_said_to_be() -> None:
    linked = Tree({"/one": file()}, links=[("/one", "/two")])

    assert Tree({"/one": file(), "/two": file()}).differences(linked) == [
        "hard links ['/one', '/two'] are split"
    ]


def test_a_file_has_a_directory_to_be_in() -> None:
    with pytest.raises(ValueError, match="'/a/b' has no directory"):
        Tree({"/a": file(), "/a/b": file()})


def test_what_replaces_a_directory_replaces_what_is_in_it() -> None:
    assert sorted(SMALL.with_entries({"/a": file()})) == ["/", "/a", "/b", "/link"]


def test_one_name_less_leaves_the_other_links() -> None:
    linked = Tree({"/one": file(b"x")}, links=[("/one", "/two", "/three")])

    assert linked.without("/one").links == {frozenset({"/two", "/three"})}
    assert linked.without("/one", "/two").links == frozenset()


# What carries IDs


@every_map
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (ACL_ACCESS, b"u::rw-,u:0:r--,u:1000:-wx,g::r--,g:42:rw-,m::rwx,o::---"),
        (CAPABILITY, b"permitted=0x2000 effective"),
        (CAPABILITY, b"permitted=0x3000000400 inheritable=0x400 root=1000"),
        ("user.note", b"\x00\xff"),
    ],
)
def test_what_is_encoded_is_decoded(name: str, text: bytes, idmap: IdMap) -> None:
    assert decode_xattr(name, encode_xattr(name, text, idmap), idmap) == text


def test_the_encoding_is_the_kernels() -> None:
    # As getfattr -e hex shows what setfacl -m u:1000:r and setcap cap_net_raw+ep write.
    acl = bytes.fromhex(
        "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff"
    )
    capability = bytes.fromhex("0100000200200000000000000000000000000000")

    assert encode_xattr(ACL_ACCESS, b"u::rw-,u:1000:r--,g::r--,m::r--,o::r--", UNMAPPED) == acl
    assert encode_xattr(CAPABILITY, b"permitted=0x2000 effective", UNMAPPED) == capability


def test_an_id_in_an_acl_outside_the_map_is_seen_as_such() -> None:
    on_disk = encode_xattr(ACL_ACCESS, b"u::rw-,u:1000:r--,g::r--,m::r--,o::r--", UNMAPPED)

    assert b"u:host-1000:r--" in decode_xattr(ACL_ACCESS, on_disk, MAPPED)


def test_an_entry_that_changed_only_its_time_is_changed_unless_it_is_a_directory() -> None:
    def later(entry: Entry) -> bool:
        return entry.changed(mtime_ns=1).is_changed_from(entry)

    assert (later(file()), later(symlink("x")), later(directory())) == (True, True, False)


# Skips

REPORTS = Path(__file__).parents[2] / "docs/conformance.md"
WAYS_TO_SKIP = {"skip", "skipif", "importorskip", "SkipTest", "require_or_skip"}


def test_the_suite_skips_by_a_capability_or_a_probe_and_in_no_other_way() -> None:
    modules = [each for each in Path(*hostspec.testing.__path__).glob("*.py") if each.stem != "requirements"]
    used = {
        f"{module.name}:{node.lineno}"
        for module in modules
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in WAYS_TO_SKIP)
        or (isinstance(node, ast.Name) and node.id in WAYS_TO_SKIP)
    }

    assert len(modules) > 20
    assert used == set()
    with pytest.raises(pytest.skip.Exception, match=r"^capability: the driver cannot"):
        skip_by_capability("cannot")
    with pytest.raises(pytest.skip.Exception, match=r"^probe: nothing there"):
        skip_by_probe("nothing there")


def test_what_the_published_reports_skip_has_one_of_these_reasons() -> None:
    reasons = re.findall(r"^\| \d+ \| (.+) \|$", REPORTS.read_text(encoding="utf-8"), re.MULTILINE)

    assert reasons
    assert [each for each in reasons if not each.startswith(("capability: ", "probe: "))] == []


def test_a_name_in_another_layer_does_not_count_as_touching_a_file(tmp_path: Path) -> None:
    linked, changed = tmp_path / "layer" / "linked", tmp_path / "layer" / "changed"
    linked.parent.mkdir()
    linked.touch()
    changed.touch()
    before = read_times(str(linked.parent))

    (tmp_path / "other-layer").hardlink_to(linked)
    os.utime(changed, (0, 0))

    after = read_times(str(linked.parent))
    assert {path: after[path].is_touched_since(before[path]) for path in after} == {
        "/": False,
        "/changed": True,
        "/linked": False,
    }
