from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.mounts import mount, unmount


def test_everything_in_a_tree_goes_and_nothing_that_it_leads_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("content")
    tree = tmp_path / "tree"
    (tree / "directory/deeper").mkdir(parents=True)
    (tree / "directory/file").write_text("content")
    (tree / "link to a directory").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
    Path(os.fsdecode(bytes(tree) + b"/\xff\n")).touch()
    delete_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").read_text() == "content"


def test_a_link_given_as_the_tree_is_deleted_itself(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    delete_tree(str(tmp_path / "link"))
    assert os.listdir(tmp_path) == ["kept"]


def test_freed_bytes_count_a_file_with_its_last_link(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/alone").write_bytes(content)
    (tmp_path / "tree/one").write_bytes(content)
    os.link(tmp_path / "tree/one", tmp_path / "tree/two")
    (tmp_path / "elsewhere").write_bytes(content)
    os.link(tmp_path / "elsewhere", tmp_path / "tree/shared")
    freed = delete_tree(str(tmp_path / "tree"))
    assert 2 << 20 <= freed < (2 << 20) + (64 << 10)


def test_a_tree_deeper_than_any_path_is_deleted_with_few_descriptors(tmp_path: Path) -> None:
    depth = 3000
    (tmp_path / "tree").mkdir()
    here = os.open(tmp_path / "tree", os.O_RDONLY)
    for level in range(depth):
        os.mkdir("directory", dir_fd=here)
        os.close(os.open(f"file {level}", os.O_CREAT, dir_fd=here))
        below = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        delete_tree(str(tmp_path / "tree"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert os.listdir(tmp_path) == []


def test_what_is_missing_frees_nothing(tmp_path: Path) -> None:
    assert delete_tree(str(tmp_path / "missing")) == 0
    assert delete_tree(str(tmp_path / "missing/below")) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_mount_inside_stops_the_deletion_and_is_named(tmp_path: Path) -> None:
    place = tmp_path / "tree/place"
    place.mkdir(parents=True)
    mount("none", str(place), "tmpfs")
    try:
        with pytest.raises(OSError, match="busy") as caught:
            delete_tree(str(tmp_path / "tree"))
        assert str(caught.value.filename).endswith("place")
    finally:
        unmount(str(place))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_deletes_own_directories_without_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents:
        if directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o011)
    (tmp_path / "tree/closed/deeper").mkdir(parents=True)
    (tmp_path / "tree/closed").chmod(0)
    for path in (tmp_path / "tree", tmp_path / "tree/closed", tmp_path / "tree/closed/deeper"):
        os.chown(path, 12_345, 12_345)
    program = (
        "import os, sys; from hostspec.kernel.deletion import delete_tree\n"
        "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
        "delete_tree(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "tree"], check=True)
    assert os.listdir(tmp_path) == []
