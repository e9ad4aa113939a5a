"""What is packed and unpacked again is the same."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings

from hostspec.archive.changes import compare_trees
from hostspec.archive.pack import pack, pack_tree
from hostspec.archive.reader import TarReader
from hostspec.archive.unpack import unpack
from hostspec.archive.upper import upper_changes
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import mount, unmount
from hostspec.values import Change, ChangeKind
from tests.archive.file_trees import Node, Tree, build, describe, tree_pairs, trees

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices and give files away")

ONE = IdMap.parse(["0:100000:65536"], ["0:200000:65536"])
OTHER = IdMap.parse(["0:5000:1000", "1000:300000:70000"], ["0:900000:65536"])
some = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def directories(count: int) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as top:
        paths = [os.path.join(top, str(number)) for number in range(count)]
        for path in paths:
            os.mkdir(path, 0o755)
        yield paths


@some
@given(trees())
def test_a_tree_comes_back_as_it_was(tree: Tree) -> None:
    with directories(2) as (source, target):
        build(source, tree)
        with pack_tree(source, idmap=IdMap()) as stream:
            unpack(stream, target, idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN)
        assert describe(target) == describe(source)
        assert list(compare_trees(target, source, new_map=IdMap(), old_map=IdMap())) == []


@some
@given(trees())
def test_a_tree_moves_from_one_map_to_another(tree: Tree) -> None:
    with directories(2) as (source, target):
        build(source, tree, ONE.to_host)
        with pack_tree(source, idmap=ONE) as stream:
            unpack(stream, target, idmap=OTHER, whiteouts=WhiteoutForm.PLAIN)
        assert describe(target, OTHER.to_container) == describe(source, ONE.to_container)
        assert list(compare_trees(target, source, new_map=OTHER, old_map=ONE)) == []


@some
@given(tree_pairs())
def test_a_diff_turns_the_old_tree_into_the_new_one(pair: tuple[Tree, Tree]) -> None:
    old, new = pair
    with directories(3) as (before, after, copy):
        build(before, old)
        build(copy, old)
        build(after, new)
        changes = list(compare_trees(after, before, new_map=IdMap(), old_map=IdMap()))
        with pack(after, changes, idmap=IdMap()) as stream:
            unpack(stream, copy, idmap=IdMap(), whiteouts=WhiteoutForm.PLAIN)
        assert without_links(describe(copy, directory_times=False)) == without_links(
            describe(after, directory_times=False)
        )


@some
@given(tree_pairs())
def test_a_diff_unpacked_as_an_overlay_layer_shows_the_new_tree(pair: tuple[Tree, Tree]) -> None:
    old, new = pair
    with directories(5) as (before, after, upper, work, merged):
        build(before, old)
        build(after, new)
        os.chmod(upper, os.stat(before).st_mode)
        shutil.copystat(before, upper)
        os.chown(upper, os.stat(before).st_uid, os.stat(before).st_gid)
        changes = list(compare_trees(after, before, new_map=IdMap(), old_map=IdMap()))
        with pack(after, changes, idmap=IdMap()) as stream:
            unpack(stream, upper, idmap=IdMap(), whiteouts=WhiteoutForm.OVERLAY, lowers=[before])
        mount("overlay", merged, "overlay", 0, f"lowerdir={before},upperdir={upper},workdir={work}")
        try:
            shown = describe(merged, directory_times=False)
            by_mount = list(compare_trees(merged, before, new_map=IdMap(), old_map=IdMap()))
        finally:
            unmount(merged)
        assert without_links(shown) == without_links(describe(after, directory_times=False))
        assert list(upper_changes(upper, [before], form=WhiteoutForm.OVERLAY)) == by_mount == changes


@some
@given(trees())
def test_two_runs_give_the_same_bytes(tree: Tree) -> None:
    with directories(1) as (source,):
        build(source, tree)
        with pack_tree(source, idmap=IdMap()) as one, pack_tree(source, idmap=IdMap()) as other:
            assert one.read() == other.read()


def acl_of(uid: int, gid: int) -> bytes:
    """Return an ACL with an entry for a user and one for a group, as acl_access holds it."""
    no_id = 0xFFFF_FFFF
    entries = [(1, 7, no_id), (2, 6, uid), (4, 5, no_id), (8, 4, gid), (0x10, 7, no_id), (0x20, 0, no_id)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def capability_of(root_id: int) -> bytes:
    """Return a version 3 capability that holds for the user namespace of this root."""
    return struct.pack("<5II", 0x0300_0001, 0x2000, 0, 0, 0, root_id)


@pytest.mark.parametrize(
    ("name", "kind", "in_tar", "on_disk"),
    [
        ("system.posix_acl_access", "file", acl_of(5, 6), acl_of(100_005, 200_006)),
        ("system.posix_acl_default", "dir", acl_of(5, 6), acl_of(100_005, 200_006)),
        ("security.capability", "file", capability_of(5), capability_of(100_005)),
    ],
)
def test_ids_in_extended_attributes_are_mapped_in_both_directions(
    name: str, kind: str, in_tar: bytes, on_disk: bytes
) -> None:
    with directories(2) as (source, target):
        mode = 0o770 if name == "system.posix_acl_access" else 0o755
        build(source, {b"": Node("dir", 0o755), b"x": Node(kind, mode, xattrs=((name, in_tar),))})
        with pack_tree(source, idmap=IdMap()) as stream:
            unpack(stream, target, idmap=ONE, whiteouts=WhiteoutForm.PLAIN)
        assert os.getxattr(os.path.join(target, "x"), name) == on_disk
        assert list(compare_trees(target, source, new_map=ONE, old_map=IdMap())) == []
        with pack_tree(target, idmap=ONE) as stream:
            found = {member.name: member.xattrs for member in TarReader(stream)}
        assert found[b"x/" if kind == "dir" else b"x"] == {name.encode(): in_tar}


def test_a_deleted_file_becomes_a_whiteout(tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    with pack(root, [Change("/a/b", ChangeKind.DELETE)], idmap=IdMap()) as stream:
        assert stream.read(512).startswith(b"a/.wh.b\0")


def without_links(described: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Leave out which names are the same file: a diff says that only of names that changed."""
    return {path: facts[:-1] for path, facts in described.items()}
