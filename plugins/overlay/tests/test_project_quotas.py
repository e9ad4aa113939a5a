"""Limits on layers. Where the kernel has no project quotas they are refused; tests/vm runs the rest."""

from __future__ import annotations

import errno
import os
import time

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.kernel.project_quotas import give_project, project_of, usage
from hostspec.values import CreateOptions, LayerRef

from .conftest import AddLayer, OpenOverlay

MIB = 1 << 20
_PATIENCE_SECONDS = 120
_OVER_THE_LIMIT = {errno.ENOSPC, errno.EDQUOT}


def fill(path: str, size: int) -> int:
    """Write zeros until there are enough, or no more are taken; return the error, 0 for none."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.writelines(bytes(MIB) for _ in range(size // MIB))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno or -1
    return 0


def make_directories(root: str, numbers: range) -> None:
    for number in numbers:
        os.mkdir(f"{root}/{number}")


def test_a_layer_takes_no_more_than_its_size(
    project_quota_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(project_quota_directory)
    assert driver.capabilities.limits_size
    base = add_layer(driver, "base", None, {"file": "x"})
    driver.create("limited", base, CreateOptions(others=(("size", "8m"),)))
    driver.create("free", base)

    with driver.mounted("limited", read_only=False) as root:
        assert fill(f"{root}/big", 16 * MIB) in _OVER_THE_LIMIT
    with driver.mounted("free", read_only=False) as root:
        assert fill(f"{root}/big", 16 * MIB) == 0
    driver.commit("limited")

    found = driver.disk_usage("limited")
    assert (found.limit_bytes, found.limit_inodes) == (8 * MIB, None)
    assert 7 * MIB < found.exclusive_bytes <= 8 * MIB
    assert driver.disk_usage("base").limit_bytes is None


def test_a_layer_takes_no_more_than_its_inodes(
    project_quota_directory: str, open_overlay: OpenOverlay
) -> None:
    driver = open_overlay(project_quota_directory)
    driver.create("limited", None, CreateOptions(inodes=50))

    with driver.mounted("limited", read_only=False) as root:
        make_directories(root, range(40))
        with pytest.raises(OSError, match=r"No space|quota") as refusal:
            make_directories(root, range(40, 60))
    assert refusal.value.errno in _OVER_THE_LIMIT
    driver.commit("limited")
    assert driver.disk_usage("limited").limit_inodes == 50


def test_the_option_holds_for_containers_and_not_for_images(
    project_quota_directory: str, open_overlay: OpenOverlay
) -> None:
    driver = open_overlay(project_quota_directory, ("size", "10m"), ("inodes", "1000"))
    driver.create("image", None, CreateOptions(read_only=True))
    driver.commit("image")
    driver.create("usual", LayerRef("image"))
    driver.create("own", LayerRef("image"), CreateOptions(others=(("size", "20m"),)))
    driver.create("unlimited", LayerRef("image"), CreateOptions(others=(("size", "0"), ("inodes", "0"))))
    for layer_id in ("usual", "own", "unlimited"):
        driver.commit(layer_id)

    limits = {each: driver.disk_usage(each) for each in ("image", "usual", "own", "unlimited")}
    assert {each: (found.limit_bytes, found.limit_inodes) for each, found in limits.items()} == {
        "image": (None, None),
        "usual": (10 * MIB, 1000),
        "own": (20 * MIB, 1000),
        "unlimited": (None, None),
    }


def test_every_limited_layer_has_a_project_of_its_own(
    project_quota_directory: str, open_overlay: OpenOverlay
) -> None:
    drivers = [open_overlay(project_quota_directory, ("size", "10m")) for _ in range(2)]
    for number in range(4):
        drivers[number % 2].create(f"layer-{number}", None)
    drivers[0].commit("layer-0")
    drivers[0].remove("layer-0")
    drivers[1].create("layer-4", None)
    for number in range(1, 5):
        drivers[number % 2 if number < 4 else 1].commit(f"layer-{number}")

    home = drivers[0].home
    projects = [project_of(f"{home}/layer-{number}") for number in range(1, 5)]
    assert len({*projects, 0}) == 5
    assert {project_of(f"{home}/layer-1/{name}") for name in ("diff", "work", "merged")} == {projects[0]}
    drivers[0].reclaim()


def test_a_removed_layer_gives_its_space_back(
    project_quota_directory: str, open_overlay: OpenOverlay
) -> None:
    driver = open_overlay(project_quota_directory)
    driver.create("layer", None, CreateOptions(size=8 * MIB))
    driver.commit("layer")
    project = project_of(f"{driver.home}/layer")
    with driver.mounted("layer", read_only=False) as root:
        fill(f"{root}/big", 4 * MIB)
    assert usage(driver.home, project).bytes >= 4 * MIB

    driver.remove("layer")
    driver.reclaim()
    end = time.monotonic() + _PATIENCE_SECONDS
    # XFS frees deleted inodes later, in its own time.
    while usage(driver.home, project).bytes >= MIB:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_home_that_hands_its_project_down_keeps_limited_layers(
    project_quota_directory: str, open_overlay: OpenOverlay
) -> None:
    os.mkdir(f"{project_quota_directory}/overlay")
    give_project(f"{project_quota_directory}/overlay", 100_000)
    driver = open_overlay(project_quota_directory)
    driver.create("usual", None)
    driver.commit("usual")
    driver.create("limited", None, CreateOptions(size=8 * MIB))
    driver.commit("limited")

    assert project_of(f"{driver.home}/usual") == 100_000
    assert project_of(f"{driver.home}/limited") == 100_001
    usual, limited = (driver.disk_usage(each) for each in ("usual", "limited"))
    assert (usual.limit_bytes, usual.project) == (None, None)
    assert (limited.limit_bytes, limited.project) == (8 * MIB, 100_001)
    driver.remove("limited")
    driver.reclaim()
    assert driver.list_layers() == ["usual"]


@pytest.mark.parametrize("option", [("size", "10g"), ("inodes", "1000")])
def test_a_default_limit_is_refused_where_there_are_no_project_quotas(
    option: tuple[str, str], directory: str, open_overlay: OpenOverlay
) -> None:
    with pytest.raises(OperationNotSupported, match=rf"{option[0]}=.*prjquota"):
        open_overlay(directory, option)
    assert not os.path.exists(f"{directory}/overlay")


@pytest.mark.parametrize(
    "options",
    [CreateOptions(size=MIB), CreateOptions(inodes=5), CreateOptions(others=(("size", "1m"),))],
)
def test_a_limit_is_refused_before_anything_is_made(
    options: CreateOptions, directory: str, driver_at: GraphDriver
) -> None:
    assert not driver_at.capabilities.limits_size
    with pytest.raises(OperationNotSupported, match="prjquota"):
        driver_at.create("layer", None, options)
    assert not os.path.exists(f"{directory}/overlay")


def test_a_storage_option_that_is_not_known_is_refused(driver_at: GraphDriver) -> None:
    with pytest.raises(InvalidRequest, match="colour=blue"):
        driver_at.create("layer", None, CreateOptions(others=(("colour", "blue"),)))


@pytest.fixture
def driver_at(directory: str, open_overlay: OpenOverlay) -> GraphDriver:
    """A driver on a file system without project quotas."""
    return open_overlay(directory)
