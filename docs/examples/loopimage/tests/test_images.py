"""What is special about layers that are file systems of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverUnavailable, OperationNotSupported, PrerequisitesMissing, StoreReadOnly
from hostspec.idmap import IdMap
from hostspec.kernel.loop import loop_filesystem
from hostspec.kernel.usernamespaces import run_in_user_namespace
from hostspec.plugins import open_driver
from hostspec.testing.children import do_at_once
from hostspec.testing.isolation import isolate_mounts
from hostspec.testing.requirements import require_or_skip
from hostspec.values import CreateOptions, LayerRef, TemplateCost

MIB = 1 << 20
PROCESSES = 3
PATIENCE = 60
"""Seconds that processes wait for each other, on a machine that is busy with other things."""

OpenLoopimage = Callable[..., GraphDriver]


@pytest.fixture
def open_loopimage(tmp_path: Path) -> Iterator[OpenLoopimage]:
    """Opens the driver with options: ``open_loopimage(("fs", "xfs"))``."""
    isolate_mounts()
    opened: list[GraphDriver] = []

    def opener(
        *options: tuple[str, str], place: str = str(tmp_path), read_only_homes: tuple[str, ...] = ()
    ) -> GraphDriver:
        home, run_root = f"{place}/home", f"{place}/run"
        try:
            driver = open_driver(
                "loopimage", home=home, run_root=run_root, options=options, read_only_homes=read_only_homes
            )
        except DriverUnavailable as unavailable:
            require_or_skip("loopimage", unavailable.reason)
        opened.append(driver)
        return driver

    yield opener
    for driver in opened:
        driver.cleanup()


@pytest.fixture(params=["xfs", "btrfs"])
def reflink_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A directory where files can share blocks."""
    isolate_mounts()
    try:
        with loop_filesystem(request.param, str(tmp_path), size_bytes=1 << 30) as place:
            yield place
    except OSError as refusal:
        require_or_skip(request.param, f"no scratch file system here: {refusal}")


def commit_with(driver: GraphDriver, layer_id: str, name: str) -> LayerRef:
    with driver.mounted(layer_id, read_only=False) as root, open(f"{root}/{name}", "wb") as opened:
        opened.write(name.encode())
    driver.commit(layer_id)
    return LayerRef(layer_id)


def names_in(driver: GraphDriver, layer_id: str) -> list[str]:
    with driver.mounted(layer_id) as root:
        return sorted(os.listdir(root))


@pytest.mark.parametrize(("filesystem", "size", "larger"), [("ext4", 64, 256), ("xfs", 300, 400)])
def test_a_layer_can_be_larger_than_its_parent(
    open_loopimage: OpenLoopimage, filesystem: str, size: int, larger: int
) -> None:
    driver = open_loopimage(("fs", filesystem), ("size", f"{size}M"))
    driver.create("parent")
    parent = commit_with(driver, "parent", "file")

    driver.create("child", parent, CreateOptions(size=larger * MIB))
    driver.commit("child")

    assert names_in(driver, "child") == ["file"]
    assert driver.disk_usage("child").limit_bytes == larger * MIB
    with driver.mounted("child") as root:
        found = os.statvfs(root)
    assert found.f_blocks * found.f_frsize > size * MIB


def test_a_layer_cannot_be_smaller_than_its_parent(open_loopimage: OpenLoopimage) -> None:
    driver = open_loopimage(("size", "16M"))
    driver.create("parent")
    parent = commit_with(driver, "parent", "file")

    with pytest.raises(OperationNotSupported, match="grow"):
        driver.create("child", parent, CreateOptions(size=8 * MIB))
    assert list(driver.list_layers()) == ["parent"]


def test_a_clone_has_what_was_just_written_to_a_mounted_template(open_loopimage: OpenLoopimage) -> None:
    driver = open_loopimage(("size", "16M"))
    driver.create("template")
    template = commit_with(driver, "template", "file")
    shared = driver.mount("template")
    with open(f"{shared}/written", "wb") as opened:
        opened.write(b"not on disk yet")

        driver.create_from_template("copy", template)
        driver.commit("copy")
    driver.unmount("template", shared)

    assert names_in(driver, "copy") == ["file", "written"]


def test_the_mounts_of_one_layer_are_one_file_system(open_loopimage: OpenLoopimage) -> None:
    driver = open_loopimage(("size", "16M"))
    driver.create("layer")
    commit_with(driver, "layer", "file")
    shared = driver.mount("layer")

    with driver.mounted("layer") as private, open(f"{shared}/new", "wb"):
        assert sorted(os.listdir(private)) == ["file", "new"]
        assert os.stat(private).st_dev == os.stat(shared).st_dev
    driver.unmount("layer", shared)


def test_a_new_layer_shows_no_directory_of_its_file_system(open_loopimage: OpenLoopimage) -> None:
    driver = open_loopimage(("size", "16M"))
    driver.create("layer")

    assert names_in(driver, "layer") == []


def test_a_clone_shares_the_blocks_of_its_original(open_loopimage: OpenLoopimage, reflink_place: str) -> None:
    driver = open_loopimage(("size", "64M"), place=reflink_place)
    driver.create("parent")
    with driver.mounted("parent", read_only=False) as root, open(f"{root}/file", "wb") as opened:
        opened.write(os.urandom(8 * MIB))
    driver.commit("parent")

    driver.create("child", LayerRef("parent"))
    driver.commit("child")

    assert names_in(driver, "child") == ["file"]
    used = driver.disk_usage("child")
    assert used.shared_bytes >= 8 * MIB
    assert used.exclusive_bytes < 8 * MIB


def test_images_are_not_taken_for_directories_of_a_home_of_the_same_kind(
    open_loopimage: OpenLoopimage, reflink_place: str
) -> None:
    driver = open_loopimage(("fs", "xfs"), ("size", "300M"), place=reflink_place)
    driver.create("template")
    template = commit_with(driver, "template", "file")
    mapped = CreateOptions(idmap=IdMap.parse(["0:100000:65536"]))

    driver.create_from_template("copy", template, None, mapped, native=False)
    driver.commit("copy")

    with driver.mounted("copy") as root:
        assert os.stat(f"{root}/file").st_uid == 100_000
    with pytest.raises(OperationNotSupported, match="no plain directories"):
        driver.dedup(["template", "copy"])


def test_processes_that_mount_one_image_at_once_see_one_file_system(open_loopimage: OpenLoopimage) -> None:
    driver = open_loopimage(("size", "16M"))
    driver.create("layer")
    commit_with(driver, "layer", "file")
    everybody = get_context("fork").Barrier(PROCESSES, timeout=PATIENCE)
    names = sorted(["file", *map(str, range(PROCESSES))])

    def work(number: int) -> None:
        mine = open_loopimage(("size", "16M"))
        everybody.wait()
        with mine.mounted("layer", read_only=False) as root:
            everybody.wait()
            with open(f"{root}/{number}", "wb"):
                everybody.wait()
            assert sorted(os.listdir(root)) == names

    do_at_once([lambda number=number: work(number) for number in range(PROCESSES)])  # type: ignore[misc]

    assert names_in(driver, "layer") == names


@pytest.mark.parametrize(("filesystem", "size"), [("ext4", "16M"), ("xfs", "300M")])
def test_a_layer_of_a_read_only_home_is_read_and_cloned_and_never_touched(
    open_loopimage: OpenLoopimage, tmp_path: Path, filesystem: str, size: str
) -> None:
    options = (("fs", filesystem), ("size", size))
    other = open_loopimage(*options, place=str(tmp_path / "other"))
    other.create("theirs")
    theirs = commit_with(other, "theirs", "file")
    image = f"{other.home}/layers/theirs/image.{filesystem}"
    # What is to be written some time later is allotted now, and counts.
    with open(image, "rb") as opened:
        os.fsync(opened.fileno())
    before = os.stat(image)

    driver = open_loopimage(*options, read_only_homes=(other.home,))
    assert driver.exists("theirs")
    assert names_in(driver, "theirs") == ["file"]
    shared = driver.mount("theirs")
    assert os.listdir(shared) == ["file"]
    driver.unmount("theirs", shared)
    driver.create("child", theirs)
    commit_with(driver, "child", "new")
    with pytest.raises(StoreReadOnly):
        driver.remove("theirs")

    assert names_in(driver, "child") == ["file", "new"]
    after = os.stat(image)
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)


def test_root_of_a_user_namespace_is_told_that_it_mounts_no_images(
    open_loopimage: OpenLoopimage, tmp_path: Path
) -> None:
    open_loopimage()  # here it can be used

    def is_refused() -> int:
        try:
            open_driver("loopimage", home=f"{tmp_path}/home", run_root=f"{tmp_path}/run")
        except PrerequisitesMissing:
            return 0
        return 1

    assert run_in_user_namespace(IdMap.parse(["0:100000:65536"]), is_refused) == 0


def test_a_clone_shares_blocks_and_a_copy_of_files_between_images_does_not(
    open_loopimage: OpenLoopimage, reflink_place: str
) -> None:
    driver = open_loopimage(place=reflink_place)

    assert driver.template_cost() is TemplateCost.REFLINKS
    assert driver.template_cost(native=False) is TemplateCost.CONTENT
