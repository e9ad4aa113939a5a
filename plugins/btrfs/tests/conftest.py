"""What the tests of the btrfs driver share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.kernel.loop import loop_filesystem
from hostspec_btrfs import open_driver

MAPPED = IdMap.parse(["0:100000:65536"])


def opened(place: str, *, read_only_homes: tuple[str, ...] = ()) -> GraphDriver:
    home = os.path.join(place, "btrfs")
    implementation = open_driver(home, os.path.join(place, "run"), (), read_only_homes)
    return GraphDriver("btrfs", implementation, home=home, run_root=os.path.join(place, "run"))


def btrfs(*arguments: str) -> str:
    done = subprocess.run(["btrfs", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def make_subvolume(*path: str, owner: int = 0) -> str:
    made = os.path.join(*path)
    btrfs("subvolume", "create", made)
    os.chown(made, owner, owner)
    return made


def is_subvolume(path: str) -> bool:
    return os.stat(path).st_ino == 256


@pytest.fixture
def driver(btrfs_directory: str) -> GraphDriver:
    return opened(btrfs_directory)


@pytest.fixture
def quota_directory(tmp_path: Path, btrfs_directory: str) -> Iterator[str]:  # noqa: ARG001 - skips where there is no btrfs
    """A btrfs of its own, on which the administrator has switched quotas on."""
    with loop_filesystem("btrfs", str(tmp_path), size_bytes=512 << 20) as place:
        btrfs("quota", "enable", place)
        yield place


def subvolumes_of(driver: GraphDriver) -> list[str]:
    """Return the paths of all subvolumes at the driver's home, those included that no path reaches."""
    place = os.path.basename(os.path.dirname(driver.home))
    listed = btrfs("subvolume", "list", driver.home).splitlines()
    return [line for line in listed if place in line]


def nested_in(tree: str) -> None:
    """Make subvolumes as systemd and btrfs-progs do in a container, with content and owners."""
    os.makedirs(os.path.join(tree, "var", "lib"))
    make_subvolume(tree, "direct", owner=1)
    machines = make_subvolume(tree, "var", "lib", "machines", owner=5)
    inner = make_subvolume(machines, "inner", owner=6)
    for place in (machines, inner):
        Path(place, "file").write_text("kept")
        os.chown(os.path.join(place, "file"), 7, 7)
