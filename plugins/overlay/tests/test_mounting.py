from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, InvalidRequest, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_options_at, mount_points, mount_table
from hostspec.kernel.mounts import bind, unmount
from hostspec.values import CreateOptions, LayerRef, MountOptions
from hostspec_overlay.layout import Lower
from hostspec_overlay.mounting import MountPlan, MountWay, mount_overlay, unavailable_ways

from .conftest import AddLayer, OpenOverlay

MAPPED = IdMap.parse(["0:200000:65536"])
EVERY_WAY = [way.value for way in MountWay]
MAPPING_WAYS = [way.value for way in MountWay if way is not MountWay.CLASSIC]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Every test ends with the mounts, the descriptors and the working directory with which it began."""
    directory = os.getcwd()
    mounts = [entry.mount_point for entry in mount_table() if entry.filesystem == "overlay"]
    yield
    assert os.getcwd() == directory
    assert [entry.mount_point for entry in mount_table() if entry.filesystem == "overlay"] == mounts


def contents(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def chain(driver: GraphDriver, add_layer: AddLayer, length: int) -> LayerRef:
    top = add_layer(driver, "layer-1", None, {"file-1": "1", "shadowed": "1"})
    for number in range(2, length + 1):
        files = {f"file-{number}": str(number), "shadowed": str(number)} if number % 50 == 0 else None
        top = add_layer(driver, f"layer-{number}", top, files)
    return top


@pytest.mark.parametrize("way", EVERY_WAY)
def test_each_way_shows_the_chain_and_takes_writes(
    way: str, directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(directory, ("hostspec_mount_api", way))
    base = add_layer(driver, "base", None, {"dir/below": "below", "shadowed": "old"})
    middle = add_layer(driver, "middle", base, {"shadowed": "new"})
    driver.create("top", middle)

    with driver.mounted("top", read_only=False) as root:
        assert (contents(f"{root}/dir/below"), contents(f"{root}/shadowed")) == ("below", "new")
        os.rename(f"{root}/dir/below", f"{root}/moved")
    driver.commit("top")

    with driver.mounted("top") as root:
        assert contents(f"{root}/moved") == "below"
        assert os.listdir(f"{root}/dir") == []
        with pytest.raises(OSError, match="Read-only"):
            os.unlink(f"{root}/moved")


@pytest.mark.parametrize("way", EVERY_WAY)
def test_each_way_takes_300_lower_layers_below_a_long_path(
    way: str, ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    directory = "/".join([ext4_directory, *["long-name-of-a-directory" * 8] * 6])
    os.makedirs(directory)
    driver = open_overlay(directory, ("hostspec_mount_api", way))
    chain(driver, add_layer, 301)

    with driver.mounted("layer-301") as root:
        assert [contents(f"{root}/file-{number}") for number in (1, 150, 300)] == ["1", "150", "300"]
        assert contents(f"{root}/shadowed") == "300"
    shared = driver.mount("layer-301")
    with open(f"{shared}/written", "w", encoding="utf-8") as file:
        file.write("x")
    driver.unmount("layer-301", shared)


@pytest.mark.parametrize("way", MAPPING_WAYS)
def test_each_way_shows_300_lower_layers_under_an_id_map(
    way: str, ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(ext4_directory, ("hostspec_mount_api", way))
    top = chain(driver, add_layer, 300)
    driver.create("container", top, CreateOptions(idmap=MAPPED))
    driver.commit("container")

    with driver.mounted("container", idmap=MAPPED, read_only=False) as root:
        assert os.stat(f"{root}/file-300").st_uid == 200_000
        assert os.stat(f"{root}/file-1").st_uid == 200_000


@pytest.mark.parametrize("way", EVERY_WAY)
def test_each_way_takes_any_name_of_home_and_layer(
    way: str, ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    directory = f"{ext4_directory}/a,b:c\\d e=f"
    os.mkdir(directory)
    driver = open_overlay(directory, ("hostspec_mount_api", way))
    base = add_layer(driver, "base,x:y\\z", None, {"file": "content"})
    add_layer(driver, "child,upperdir=:", base, {"own": "x"})

    with driver.mounted("child,upperdir=:", read_only=False) as root:
        assert contents(f"{root}/file") == "content"
    with driver.mounted("base,x:y\\z") as root:
        assert contents(f"{root}/file") == "content"


@pytest.mark.parametrize("way", EVERY_WAY)
def test_each_way_obeys_mount_options(
    way: str, ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(
        ext4_directory, ("hostspec_mount_api", way), ("mountopt", "nodev,noatime,metacopy=on,volatile")
    )
    add_layer(driver, "layer")

    path = driver.mount("layer", MountOptions(options=("nosuid", "xino=off")))
    found = mount_options_at(path)
    driver.unmount("layer", path)

    assert {"nodev", "nosuid", "noatime", "metacopy=on"} <= {*found}
    assert {"volatile", "fsync=volatile"} & {*found}


def test_a_layer_that_was_mounted_volatile_can_be_mounted_again(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(driver, "layer")
    for _ in range(2):
        driver.unmount("layer", driver.mount("layer", MountOptions(volatile=True)))


def test_the_shared_mount_is_at_merged_and_made_once(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer")

    paths = {driver.mount("layer") for _ in range(3)}

    assert paths == {f"{driver.home}/layer/merged"}
    assert mount_points(driver.home) == [*paths, driver.home]
    for path in [*paths] * 2:
        driver.unmount("layer", path)
    assert mount_points(driver.home) == []


def test_the_home_is_no_mount_where_the_user_does_not_want_it(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(ext4_directory, ("skip_mount_home", "true"))
    add_layer(driver, "layer")

    path = driver.mount("layer")
    assert mount_points(driver.home) == [path]
    driver.unmount("layer", path)


def test_a_file_system_that_is_mounted_at_the_home_stays(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    home = f"{ext4_directory}/overlay"
    for path in (home, f"{ext4_directory}/elsewhere"):
        os.mkdir(path)
    bind(f"{ext4_directory}/elsewhere", home)
    driver = open_overlay(ext4_directory)
    add_layer(driver, "layer")

    driver.unmount("layer", driver.mount("layer"))
    driver.cleanup()

    assert mount_points(home) == [home]
    unmount(home)


def test_the_shared_mount_is_made_where_another_client_deleted_its_directory(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(driver, "layer", None, {"file": "x"})
    os.rmdir(f"{driver.home}/layer/merged")

    path = driver.mount("layer")
    assert os.listdir(path) == ["file"]
    driver.unmount("layer", path)


def test_a_private_mount_shows_what_the_shared_one_wrote(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer", None, {"file": "x"})
    shared = driver.mount("layer")
    with open(f"{shared}/written", "w", encoding="utf-8") as file:
        file.write("y")

    with driver.mounted("layer") as root:
        assert contents(f"{root}/written") == "y"

    assert mount_points(driver.home) == [shared, driver.home]
    driver.unmount("layer", shared)


def test_a_busy_mount_stays_and_is_said_to_be_busy(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer", None, {"file": "x"})
    path = driver.mount("layer")
    with open(f"{path}/file", encoding="utf-8"), pytest.raises(DriverFailed, match="busy"):
        driver.unmount("layer", path)
    assert mount_points(driver.home) == [path, driver.home]
    driver.unmount("layer", path)


def test_an_unknown_layer_cannot_be_mounted(driver: GraphDriver) -> None:
    with pytest.raises(Unknown):
        driver.mount("nobody")


def test_an_unknown_mount_option_is_refused(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer")
    with pytest.raises(InvalidRequest, match="lowerdir=/etc"):
        driver.mount("layer", MountOptions(options=("lowerdir=/etc",)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_the_kernel_says_is_in_the_error(ext4_directory: str) -> None:
    names = [f"layer-{number}" for number in range(501)]
    for name in names:
        os.mkdir(f"{ext4_directory}/{name}")
    plan = MountPlan(ext4_directory, [Lower(ext4_directory, name) for name in names])

    with pytest.raises(OSError, match="too many lower directories, limit is 500"):
        mount_overlay(plan, f"{ext4_directory}/layer-0")


def test_where_the_kernel_says_nothing_the_error_points_to_its_log(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(driver, "layer")
    with pytest.raises(DriverFailed, match=r"mount layer layer.*dmesg"):
        driver.mount("layer", MountOptions(options=("metacopy=on", "redirect_dir=off")))


def test_a_request_that_no_way_can_grant_leaves_all_ways_to_be_used(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(driver, "layer")
    with pytest.raises(DriverFailed):
        driver.mount("layer", MountOptions(options=("metacopy=on", "redirect_dir=off")))

    assert unavailable_ways() == {}


def test_more_layers_than_the_kernel_mounts_are_refused_by_number(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    top = add_layer(driver, "layer-0")
    for number in range(1, 500):
        top = add_layer(driver, f"layer-{number}", top)
    with driver.mounted("layer-499") as root:
        assert os.listdir(root) == []

    with pytest.raises(Exception, match="at most 500 layers"):
        add_layer(driver, "one-too-many", top)
