from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, IdNotMapped, OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_table
from hostspec.values import CreateOptions, LayerRef, MountOptions, ShiftOptions, StoredIds
from hostspec_overlay.mounting import MountWay

from .conftest import OpenOverlay

NONE = IdMap()
MAPPED = IdMap.parse(["0:200000:65536"])
SPLIT = IdMap.parse(["0:300000:1", "1:400001:65535"], ["0:500000:65536"])


def owner(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def fill(driver: GraphDriver, layer_id: str, parent: LayerRef | None = None) -> LayerRef:
    """Make a layer with a file of user 7, hard links, a set-ID program, a symbolic link and a directory."""
    driver.create(layer_id, parent)
    with driver.mounted(layer_id, read_only=False) as root:
        os.mkdir(f"{root}/{layer_id}")
        for name, mode in (("file", 0o640), ("program", 0o4755)):
            path = f"{root}/{layer_id}/{name}"
            with open(path, "w", encoding="utf-8") as file:
                file.write("x" * 5000)
            os.chown(path, 7, 8)
            os.chmod(path, mode)
        os.link(f"{root}/{layer_id}/file", f"{root}/{layer_id}/linked")
        os.symlink("file", f"{root}/{layer_id}/symlink")
    driver.commit(layer_id)
    return LayerRef(layer_id)


def whiteout(path: str) -> bool:
    found = os.lstat(path)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


# Shifting at mount time


@pytest.mark.parametrize("idmap", [MAPPED, SPLIT], ids=["one range", "several ranges"])
def test_a_shifted_mount_shows_mapped_owners(idmap: IdMap, directory: str, open_overlay: OpenOverlay) -> None:
    driver = open_overlay(directory)
    base = fill(driver, "base")
    driver.create("container", base, CreateOptions(idmap=idmap))
    driver.commit("container")
    assert driver.supports_shifting(idmap).possible

    with driver.mounted("container", idmap=idmap, read_only=False) as root:
        assert owner(f"{root}/base/file") == idmap.to_host(7, 8)
        assert owner(root) == idmap.to_host(0, 0)


def test_what_is_written_through_a_shifted_mount_is_stored_mapped(driver: GraphDriver) -> None:
    assert driver.supports_shifting(MAPPED).stored is StoredIds.MAPPED
    base = fill(driver, "base")
    driver.create("container", base)
    driver.commit("container")
    with driver.mounted("container", idmap=MAPPED, read_only=False) as root:
        os.chmod(f"{root}/base/file", 0o600)

    assert owner(f"{driver.home}/container/diff/base/file") == (200_007, 200_008)
    with driver.mounted("container", idmap=MAPPED) as root:
        assert owner(f"{root}/base/file") == (200_007, 200_008)
        assert owner(f"{root}/base/program") == (200_007, 200_008)
        assert owner(root) == (200_000, 200_000)


def test_an_image_layer_can_be_looked_at_under_a_map(driver: GraphDriver) -> None:
    fill(driver, "base")
    with driver.mounted("base", idmap=MAPPED) as root:
        assert owner(f"{root}/base/file") == (200_007, 200_008)
        assert owner(root) == (200_000, 200_000)
    assert owner(f"{driver.home}/base/diff") == (0, 0)


def test_a_writable_layer_with_unmapped_files_of_its_own_is_not_shown_with_wrong_owners(
    driver: GraphDriver,
) -> None:
    fill(driver, "base")
    with pytest.raises(OperationNotSupported, match="holds unmapped files"):
        driver.mount("base", MountOptions(idmap=MAPPED))


def test_shifting_can_be_switched_off(
    ext4_directory: str, open_overlay: OpenOverlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option = open_overlay(ext4_directory, ("hostspec_shifting", "off")).supports_shifting(MAPPED)
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    by_environment = open_overlay(ext4_directory).supports_shifting(MAPPED)

    assert (by_option.possible, by_environment.possible) == (False, False)
    assert "hostspec_shifting" in by_option.reason
    assert "_CONTAINERS_OVERLAY_DISABLE_IDMAP" in by_environment.reason


def test_without_the_new_mount_api_there_is_no_shifting(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    found = open_overlay(ext4_directory, ("hostspec_mount_api", "classic")).supports_shifting(MAPPED)
    assert not found.possible
    assert "no detached mounts" in found.reason


@pytest.mark.parametrize(
    "idmap",
    [IdMap.parse(["1:200001:65535"]), IdMap.parse(["0:200000:65536"], ["1:200001:65535"])],
    ids=["neither", "no GID"],
)
def test_a_map_without_the_ids_of_the_hosts_root_is_not_shifted(driver: GraphDriver, idmap: IdMap) -> None:
    base = fill(driver, "base")

    found = driver.supports_shifting(idmap)

    assert not found.possible
    assert "leaves out UID 0 or GID 0" in found.reason
    # Which is no more than the truth.
    driver.create("container", base)
    driver.commit("container")
    with pytest.raises(DriverFailed, match="Permission denied"):
        driver.mount("container", MountOptions(idmap=idmap))
    assert not [entry for entry in mount_table() if entry.mount_point.startswith(driver.home)]


def test_asking_what_is_possible_writes_nothing_to_a_home_that_is_not_there(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    driver = open_overlay(f"{ext4_directory}")
    before = os.listdir(ext4_directory)
    facts = dict(driver.status())
    driver.supports_shifting(SPLIT)

    assert os.listdir(ext4_directory) == before
    assert facts["Backing Filesystem"] == "ext4"
    probed = ("metacopy", "redirect_dir", "index", "userxattr", "volatile", "Idmapped lower layers")
    assert [facts[name].split()[0] for name in probed] == ["yes"] * len(probed)


# The ownership pass


@pytest.mark.parametrize(
    "option",
    [
        *(("hostspec_mount_api", way.value) for way in MountWay),
        ("hostspec_volatile_pass", "off"),
        ("hostspec_direct_pass", "on"),
    ],
    ids="=".join,
)
def test_an_ownership_pass_moves_what_is_inherited_below_an_empty_difference(
    option: tuple[str, str], directory: str, open_overlay: OpenOverlay
) -> None:
    # The ways of mounting matter only where a mount is made.
    driver = open_overlay(directory, ("hostspec_direct_pass", "off"), option)
    template = fill(driver, "template", fill(driver, "base"))
    mounts = len(mount_table())

    assert (
        driver.create_from_template("copy", template, LayerRef("base"), CreateOptions(idmap=MAPPED)) == NONE
    )
    shifted = driver.update_idmap("copy", NONE, MAPPED)
    driver.commit("copy")

    assert len(mount_table()) == mounts
    # The root, and for each of two layers: a directory, two files, a symbolic link.
    assert shifted.inodes == 9
    # XFS has reflinks.
    assert shifted.bytes_copied == (0 if "xfs" in dict(driver.status())["Backing Filesystem"] else 20_000)
    assert os.listdir(f"{driver.home}/copy/diff") == []
    assert os.listdir(f"{driver.home}/copy/work") == []
    with driver.mounted("copy") as root:
        assert owner(root) == (200_000, 200_000)
        for layer in ("base", "template"):
            assert owner(f"{root}/{layer}/file") == (200_007, 200_008)
            assert owner(f"{root}/{layer}/symlink") == (200_000, 200_000)
            assert os.lstat(f"{root}/{layer}/program").st_mode & 0o7777 == 0o4755
            assert os.path.samefile(f"{root}/{layer}/file", f"{root}/{layer}/linked")
    with driver.mounted("template") as root:
        assert owner(f"{root}/base/file") == (7, 8)


def test_metacopy_is_used_where_the_store_has_it(directory: str, open_overlay: OpenOverlay) -> None:
    driver = open_overlay(directory, ("mountopt", "metacopy=on"))
    template = fill(driver, "template")
    driver.create_from_template("copy", template, None)

    shifted = driver.update_idmap("copy", NONE, MAPPED)
    driver.commit("copy")

    assert shifted.bytes_copied == 0
    stub = f"{driver.home}/copy/diff1/template/program"
    assert "trusted.overlay.metacopy" in os.listxattr(stub)
    with open(stub, "rb") as file_on_disk:
        assert file_on_disk.read() == bytes(5000)
    with driver.mounted("copy") as root, open(f"{root}/template/program", encoding="utf-8") as file:
        assert file.read() == "x" * 5000


def test_metacopy_is_not_used_where_the_store_lacks_it(driver: GraphDriver) -> None:
    driver.create_from_template("copy", fill(driver, "template"), None)
    driver.update_idmap("copy", NONE, MAPPED)
    assert "copy" not in driver.list_layers()
    driver.commit("copy")

    copied = f"{driver.home}/copy/diff1/template/program"
    assert "trusted.overlay.metacopy" not in os.listxattr(copied)
    with open(copied, encoding="utf-8") as file:
        assert file.read() == "x" * 5000


def test_stubs_keep_their_content_where_the_store_has_metacopy_no_longer(
    directory: str, open_overlay: OpenOverlay
) -> None:
    before = open_overlay(directory, ("mountopt", "metacopy=on"))
    before.create_from_template("copy", fill(before, "template"), None)
    before.update_idmap("copy", NONE, MAPPED)
    before.commit("copy")
    driver = open_overlay(directory)

    driver.create("container", LayerRef("copy", MAPPED))
    driver.create_from_template("second", LayerRef("copy", MAPPED), None)
    driver.update_idmap("second", MAPPED, SPLIT)

    for layer_id in ("copy", "container", "second"):
        with driver.mounted(layer_id, read_only=layer_id == "copy") as root:
            with open(f"{root}/template/program", encoding="utf-8") as file:
                assert file.read() == "x" * 5000
            assert owner(f"{root}/template/program") == (SPLIT if layer_id == "second" else MAPPED).to_host(
                7, 8
            )


@pytest.mark.parametrize("option", ["redirect_dir=off", "nfs_export=on,index=on"])
def test_options_that_forbid_metacopy_stay_as_the_user_has_them(
    option: str, ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    before = open_overlay(ext4_directory, ("mountopt", "metacopy=on"))
    before.create_from_template("copy", fill(before, "template"), None)
    before.update_idmap("copy", NONE, MAPPED)
    before.commit("copy")

    with (
        open_overlay(ext4_directory, ("mountopt", option)).mounted("copy") as root,
        pytest.raises(PermissionError),
    ):
        os.stat(f"{root}/template/program")


def test_a_second_pass_goes_on_from_the_first(driver: GraphDriver) -> None:
    driver.create("copy", fill(driver, "base"))
    driver.update_idmap("copy", NONE, MAPPED)
    driver.update_idmap("copy", MAPPED, SPLIT)
    driver.commit("copy")

    assert os.path.isdir(f"{driver.home}/copy/diff2")
    with driver.mounted("copy") as root:
        assert owner(f"{root}/base/file") == SPLIT.to_host(7, 8)
        assert owner(root) == SPLIT.to_host(0, 0)


def test_what_a_layer_added_before_the_pass_stays_its_difference(driver: GraphDriver) -> None:
    base = fill(driver, "base")
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        os.unlink(f"{root}/base/program")
        with open(f"{root}/own", "w", encoding="utf-8") as file:
            file.write("own")
    driver.update_idmap("layer", NONE, MAPPED)
    driver.update_idmap("layer", MAPPED, SPLIT)
    driver.commit("layer")

    diff = f"{driver.home}/layer/diff"
    assert sorted(os.listdir(diff)) == ["base", "own"]
    assert owner(f"{diff}/own") == SPLIT.to_host(0, 0)
    assert whiteout(f"{diff}/base/program")
    with driver.mounted("layer") as root:
        assert sorted(os.listdir(f"{root}/base")) == ["file", "linked", "symlink"]
        assert owner(f"{root}/base/file") == SPLIT.to_host(7, 8)
        assert owner(root) == SPLIT.to_host(0, 0)


def test_an_id_of_a_deleted_file_need_not_be_in_the_map(driver: GraphDriver) -> None:
    driver.create("base")
    with driver.mounted("base", read_only=False) as root:
        for name in ("deleted", "replaced"):
            os.makedirs(f"{root}/{name}/below")
            os.chown(f"{root}/{name}/below", 70_000, 70_000)
        os.mkdir(f"{root}/kept")
    driver.commit("base")
    base = LayerRef("base")
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        for name in ("deleted", "replaced"):
            os.rmdir(f"{root}/{name}/below")
            os.rmdir(f"{root}/{name}")
        os.mkdir(f"{root}/replaced")
    driver.update_idmap("layer", NONE, MAPPED)
    driver.commit("layer")

    assert os.listdir(f"{driver.home}/layer/diff1") == ["kept"]
    with driver.mounted("layer") as root:
        assert sorted(os.listdir(root)) == ["kept", "replaced"]
        assert os.listdir(f"{root}/replaced") == []
        assert owner(f"{root}/kept") == owner(f"{root}/replaced") == MAPPED.to_host(0, 0)


def test_a_layer_without_parent_is_changed_where_it_lies(driver: GraphDriver) -> None:
    driver.create("base")
    with driver.mounted("base", read_only=False) as root, open(f"{root}/file", "w", encoding="utf-8"):
        pass
    shifted = driver.update_idmap("base", NONE, MAPPED)

    assert (shifted.inodes, shifted.bytes_copied) == (2, 0)
    with driver.mounted("base") as root:
        assert owner(f"{root}/file") == owner(root) == (200_000, 200_000)


def test_an_id_outside_the_map_is_named_unless_it_may_be_squashed(driver: GraphDriver) -> None:
    narrow = IdMap.parse(["0:200000:5"])
    base = fill(driver, "base")
    driver.create("layer", base)
    with pytest.raises(IdNotMapped) as refused:
        driver.update_idmap("layer", NONE, narrow)
    assert refused.value.path.startswith("/base/")
    assert refused.value.number in {7, 8}
    driver.remove("layer")

    driver.create("layer", base)
    shifted = driver.update_idmap("layer", NONE, narrow, ShiftOptions(squash=True))
    assert shifted.squashed > 0
    with driver.mounted("layer") as root:
        assert owner(f"{root}/base/file") == (200_004, 200_004)


def test_ignore_chown_errors_squashes(ext4_directory: str, open_overlay: OpenOverlay) -> None:
    driver = open_overlay(ext4_directory, ("ignore_chown_errors", "true"))
    driver.create("layer", fill(driver, "base"))
    assert driver.update_idmap("layer", NONE, IdMap.parse(["0:200000:5"])).squashed > 0


KILLED_WHILE_IT_WORKS = """
import os, signal, sys
from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.values import LayerRef, ShiftOptions
from hostspec_overlay import open_driver

home, run_root, way = sys.argv[1:]
by_mount = (("hostspec_mount_api", way), ("hostspec_direct_pass", "off"))
options = () if way == "direct" else by_mount
driver = GraphDriver("overlay", open_driver(home, run_root, options, ()), home=home, run_root=run_root)
driver.create_from_template("copy", LayerRef("template"), None)

def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)

driver.update_idmap("copy", IdMap(), IdMap.parse(["0:200000:65536"]), ShiftOptions(progress=die))
"""


@pytest.mark.parametrize("way", ["direct", *(way.value for way in MountWay)])
def test_a_process_that_is_killed_in_a_pass_leaves_nothing(
    way: str, driver: GraphDriver, open_overlay: OpenOverlay
) -> None:
    fill(driver, "template")
    arguments = [sys.executable, "-c", KILLED_WHILE_IT_WORKS, driver.home, f"{driver.home}/../run", way]
    killed = subprocess.run(arguments, check=False)
    assert killed.returncode == -signal.SIGKILL

    if way != "classic":
        assert not [entry for entry in mount_table() if entry.mount_point.startswith(driver.home)]
    assert driver.list_layers() == ["template"]
    assert open_overlay(os.path.dirname(driver.home)).reclaim() > 0
    assert not [entry for entry in mount_table() if entry.mount_point.startswith(driver.home)]
    driver.cleanup()
    assert os.listdir(f"{driver.home}/tempdirs") == []
    driver.remove("template")
