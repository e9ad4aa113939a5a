"""Which contents of a tar lie in files of their names is known, or it is known that one must look."""

from __future__ import annotations

import tarfile

import pytest

from hostspec.archive.content_files import ContentFiles
from hostspec.archive.reader import TarReader
from tests.archive.handmade import Given, directory, file, handmade, hard_link, symlink

LONG = "a/" * 3000

SURE = {
    "directories before what is in them": [directory("a"), directory("a/b"), file("a/b/f")],
    "directories that are not mentioned": [file("a/b/f"), file("a/g"), file("h")],
    "a directory after what is in it": [file("a/f"), directory("a"), file("a/g")],
    "a directory twice": [directory("a"), file("a/f"), directory("./a/"), file("/a/g")],
    "a link that nothing is led through": [symlink("a", "b"), file("b/f")],
    "a file in the place of an empty one": [file("a", b""), file("a")],
    "a link in the place of a link": [symlink("a", "b"), symlink("a", "c"), hard_link("a", "d")],
}
UNSURE = {
    "a file in the place of a directory": [directory("a"), file("a/f"), file("a")],
    "a file in the place of a directory that is not mentioned": [file("a/b/f"), file("a")],
    "a link in the place of a directory": [directory("a"), file("a/f"), symlink("a", "b")],
    "a directory in the place of a link": [symlink("a", "b"), directory("a")],
    "a name through a link": [directory("b"), symlink("a", "b"), file("a/f")],
    "a deep name through a link": [directory("b"), symlink("a", "b"), file("a/c/d/f")],
    "a directory through a link": [symlink("a", "b"), directory("a/c"), file("a/c/f")],
    "a name that is too long": [file(LONG + "f")],
}


def told(members: list[Given], *, tree_is_empty: bool) -> ContentFiles:
    files = ContentFiles(tree_is_empty=tree_is_empty)
    for member in TarReader(handmade(*members, form=tarfile.GNU_FORMAT)):
        files.has(member)
    return files


@pytest.mark.parametrize("members", SURE.values(), ids=SURE)
def test_what_ordinary_tars_have_needs_no_look(members: list[Given]) -> None:
    assert not told(members, tree_is_empty=True).needs_proof


@pytest.mark.parametrize("members", UNSURE.values(), ids=UNSURE)
def test_what_may_lie_elsewhere_needs_a_look(members: list[Given]) -> None:
    files = told(members, tree_is_empty=True)
    assert files.needs_proof
    assert files.lost is None


def test_in_a_tree_with_files_only_directories_that_the_tar_mentions_are_sure() -> None:
    assert not told(
        [directory("a"), directory("a/b"), file("a/b/f"), file("g")], tree_is_empty=False
    ).needs_proof
    assert told([directory("a"), file("a/b/f")], tree_is_empty=False).needs_proof
    assert told([file("a/f")], tree_is_empty=False).needs_proof
