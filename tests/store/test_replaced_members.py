"""A tar may replace what it brought: its layer's diff is that tar, bit by bit, or is packed anew."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from hostspec.store import Layer, Store
from hostspec.testing.requirements import require_or_skip
from tests.archive.handmade import Given, directory, file, handmade, hard_link, symlink

GO = "containers-storage"
NULL = Given("d", tarfile.CHRTYPE, facts={"devmajor": 0, "devminor": 0})

KEPT = {
    "directory-for-empty-file": [file("d", b""), directory("d"), file("d/f", b"1" * 9)],
    "directory-after-its-children": [file("d/f", b"1" * 9), directory("d")],
    "file-for-empty-file": [file("f", b""), file("f", b"2" * 9)],
    "file-for-hard-link": [file("f", b"1" * 9), hard_link("l", "f"), file("l", b"2" * 9)],
    "through-a-link": [directory("e"), symlink("d", "e"), file("d/f", b"1" * 9)],
    "whiteout-of-its-own": [directory("d"), file("d/f", b"1" * 9), file(".wh.d", b"")],
    "empty-directory-replaced": [directory("d"), file("d", b"2" * 5)],
}
"""Tars that come back, though they look as if they might not."""

LOST = {
    "file-for-directory": [directory("d"), file("d/f", b"1" * 9), file("d", b"2" * 5)],
    "file-for-unmentioned-directory": [file("d/f", b"1" * 9), file("d", b"2" * 5)],
    "link-for-directory": [directory("d"), file("d/f", b"1" * 9), symlink("d", "e")],
    "hard-link-for-directory": [file("x", b"3"), directory("d"), file("d/f", b"1" * 9), hard_link("d", "x")],
    "fifo-for-directory": [directory("d"), file("d/f", b"1" * 9), Given("d", tarfile.FIFOTYPE)],
    "directory-for-file": [file("d", b"2" * 5), directory("d"), file("d/f", b"1" * 9)],
    "directory-for-link": [directory("e"), symlink("d", "e"), file("d/f", b"1" * 9), directory("d")],
    "same-file-through-a-link": [
        directory("e"),
        symlink("d", "e"),
        file("d/f", b"1" * 9),
        file("e/f", b"2" * 9),
    ],
    "another-size-through-a-link": [
        directory("e"),
        symlink("d", "e"),
        file("d/f", b"1" * 9),
        file("e/f", b"2" * 5),
    ],
    "same-name-twice": [file("f", b"1" * 9), file("f", b"2" * 9)],
    "hard-link-to-what-is-replaced": [file("f", b"1" * 9), hard_link("l", "f"), file("f", b"2" * 9)],
    "link-for-file": [file("f", b"1" * 9), symlink("f", "x")],
}
"""Tars with a content that is nowhere in the end. The Go library refuses most of them, and what it
accepts of the others it cannot give back."""


@pytest.fixture
def store(store_of_each_driver: Store) -> Store:
    return store_of_each_driver


def diff_of(store: Store, layer: Layer) -> bytes:
    with store.diff(layer.id) as stream:
        return stream.read()


def has_tar_split(store: Store, layer: Layer) -> bool:
    return os.path.exists(f"{store.root}/{store.driver_name}-layers/{layer.id}.tar-split.gz")


def files_in(top: Path) -> dict[str, bytes | str | None]:
    """Return what every name in a directory is: content, target or nothing."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def unpacked(tar: bytes, where: Path) -> dict[str, bytes | str | None]:
    where.mkdir()
    subprocess.run(["tar", "-x", "-C", str(where)], input=tar, check=True)
    return files_in(where)


def by_go(store: Store, command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(GO) is None:
        require_or_skip(GO, "is not installed; Debian's package has the same name")
    places = ["--graph", store.root, "--run", store.run_root, "--storage-driver", store.driver_name]
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
    return subprocess.run(
        [GO, command, *places, *arguments], check=False, capture_output=True, env=environment
    )


@pytest.mark.parametrize("members", KEPT.values(), ids=KEPT)
def test_a_tar_whose_contents_are_all_there_comes_back(members: list[Given], store: Store) -> None:
    tar = handmade(*members).getvalue()
    layer = store.import_layer(io.BytesIO(tar))
    assert has_tar_split(store, layer)
    assert diff_of(store, layer) == tar
    assert by_go(store, "diff", "-u", layer.id).stdout == tar


@pytest.mark.parametrize("members", LOST.values(), ids=LOST)
def test_a_tar_with_a_content_that_is_nowhere_is_packed_anew(
    members: list[Given], store: Store, tmp_path: Path
) -> None:
    tar = handmade(*members).getvalue()
    layer = store.import_layer(io.BytesIO(tar))
    assert not has_tar_split(store, layer)
    with store.mounting(layer.id) as mounted:
        expected = files_in(Path(mounted))
    assert unpacked(diff_of(store, layer), tmp_path / "ours") == expected
    assert unpacked(by_go(store, "diff", "-u", layer.id).stdout, tmp_path / "go") == expected


@pytest.mark.parametrize("members", LOST.values(), ids=LOST)
def test_the_go_library_gives_none_of_them_back(members: list[Given], store: Store, tmp_path: Path) -> None:
    tar = handmade(*members).getvalue()
    (tmp_path / "tar").write_bytes(tar)
    imported = by_go(store, "import-layer", "-f", str(tmp_path / "tar"))
    if imported.returncode == 0:
        assert by_go(store, "diff", "-u", imported.stdout.decode().split()[0]).returncode != 0


def test_what_a_parents_link_leads_astray_is_packed_anew(store: Store) -> None:
    base = store.import_layer(handmade(directory("e"), symlink("d", "e")))
    tar = handmade(file("d/f", b"1" * 9), file("e/f", b"2" * 9)).getvalue()
    layer = store.import_layer(io.BytesIO(tar), base.id)
    if has_tar_split(store, layer):
        assert diff_of(store, layer) == tar
        assert by_go(store, "diff", "-u", layer.id).stdout == tar
    else:
        assert store.driver.capabilities.layers_are_whole
        assert diff_of(store, layer)


def test_a_diff_that_an_older_link_leads_astray_is_packed_anew(store: Store) -> None:
    layer = store.create_layer()
    store.apply_diff(layer.id, handmade(directory("e"), symlink("d", "e")))
    store.apply_diff(layer.id, handmade(file("d/f", b"1" * 9), file("e/f", b"2" * 9)))
    assert not has_tar_split(store, layer)
    assert diff_of(store, layer)
    tar = handmade(directory("d"), file("d/f", b"1" * 9), file("e/f", b"2" * 9)).getvalue()
    store.apply_diff(layer.id, io.BytesIO(tar))
    assert has_tar_split(store, layer)
    assert diff_of(store, layer) == tar
