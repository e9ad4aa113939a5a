"""What is special about layers that are images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverUnavailable, IdNotMapped, PrerequisitesMissing
from hostspec.idmap import IdMap
from hostspec.kernel.usernamespaces import run_in_user_namespace
from hostspec.plugins import open_driver
from hostspec.testing import DriverOpener
from hostspec.testing.isolation import isolate_mounts
from hostspec.testing.requirements import require_or_skip
from hostspec.values import CreateOptions, LayerRef, MountOptions

FOR_IMAGE = CreateOptions(read_only=True)
MAPPED = IdMap.parse(["0:100000:65536"])


@pytest.fixture
def driver(tmp_path: os.PathLike[str]) -> GraphDriver:
    isolate_mounts()
    try:
        return DriverOpener(frozenset())(os.fspath(tmp_path), "erofs")
    except DriverUnavailable as unavailable:
        require_or_skip("erofs", unavailable.reason)


def commit_with(driver: GraphDriver, layer_id: str, *names: str, owner: int = 0) -> LayerRef:
    with driver.mounted(layer_id, read_only=False) as root:
        for name in names:
            with open(f"{root}/{name}", "wb") as opened:
                opened.write(name.encode())
            os.chown(f"{root}/{name}", owner, owner)
    driver.commit(layer_id)
    return LayerRef(layer_id)


def image_layer(driver: GraphDriver, layer_id: str, *names: str, owner: int = 0) -> LayerRef:
    driver.create(layer_id, options=FOR_IMAGE)
    return commit_with(driver, layer_id, *names, owner=owner)


def files_of(driver: GraphDriver, layer_id: str) -> list[str]:
    return sorted(os.listdir(f"{driver.home}/layers/{layer_id}"))


def test_an_image_layer_is_one_file_from_its_commit_on(driver: GraphDriver) -> None:
    driver.create("layer", options=FOR_IMAGE)
    commit_with(driver, "layer", *map(str, range(100)))

    assert files_of(driver, "layer") == ["layer.erofs", "layer.json", "merged"]
    assert driver.disk_usage("layer").inodes < 10


def test_a_copy_of_a_template_is_no_more_than_a_map(driver: GraphDriver) -> None:
    template = image_layer(driver, "template", "file", owner=1_000)

    carried = driver.create_from_template("copy", template, None, CreateOptions(idmap=MAPPED, read_only=True))
    driver.commit("copy")

    assert carried == MAPPED
    assert files_of(driver, "copy") == ["layer.json", "merged"]
    with driver.mounted("copy") as root:
        assert os.stat(f"{root}/file").st_uid == 101_000


def test_a_copy_under_a_map_that_lacks_an_id_is_left_to_the_fallback(driver: GraphDriver) -> None:
    template = image_layer(driver, "template", "file", owner=70_000)

    with pytest.raises(IdNotMapped):
        driver.create_from_template("copy", template, None, CreateOptions(idmap=MAPPED, read_only=True))


def test_an_image_layer_is_not_written_again(driver: GraphDriver, tmp_path: os.PathLike[str]) -> None:
    image_layer(driver, "layer", "file")
    target = os.path.join(tmp_path, "target")
    os.mkdir(target)
    driver.mount("layer", MountOptions(target=target))

    with pytest.raises(OSError, match="Read-only"):
        os.unlink(f"{target}/file")
    driver.unmount("layer", target)


def test_a_name_of_255_bytes_is_kept(driver: GraphDriver) -> None:
    name = "n" * 255
    image_layer(driver, "layer", name)

    with driver.mounted("layer") as root:
        assert os.listdir(root) == [name]


def test_a_removed_image_stays_as_long_as_it_is_mounted(
    driver: GraphDriver, tmp_path: os.PathLike[str]
) -> None:
    image_layer(driver, "layer", "file")
    target = os.path.join(tmp_path, "target")
    os.mkdir(target)
    driver.mount("layer", MountOptions(target=target))
    driver.remove("layer")
    driver.reclaim()

    with open(f"{target}/file", "rb") as opened:
        assert opened.read() == b"file"
    driver.unmount("layer", target)


def test_root_of_a_user_namespace_is_told_that_it_mounts_no_images(
    driver: GraphDriver, tmp_path: Path
) -> None:
    del driver  # here it can be used

    def is_refused() -> int:
        try:
            open_driver("erofs", home=f"{tmp_path}/home", run_root=f"{tmp_path}/run")
        except PrerequisitesMissing:
            return 0
        return 1

    assert run_in_user_namespace(IdMap.parse(["0:100000:65536"]), is_refused) == 0
