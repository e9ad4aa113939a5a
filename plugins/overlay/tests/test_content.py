from __future__ import annotations

import io
import os
import subprocess
import tarfile

import pytest

from hostspec.driver import GraphDriver
from hostspec.idmap import IdMap
from hostspec.plugins import open_driver
from hostspec.values import Change, ChangeKind, CreateOptions, LayerRef, MountOptions

from .conftest import AddLayer, OpenOverlay

MAPPED = IdMap.parse(["0:200000:65536"])


def native(driver: GraphDriver, hook: str, layer: LayerRef, parent: LayerRef | None) -> object:
    """Ask the driver itself, not the fallback."""
    return getattr(driver._implementation, hook)(layer, parent)


def members(driver: GraphDriver, layer: LayerRef, parent: LayerRef | None) -> list[tarfile.TarInfo]:
    with driver.diff(layer, parent) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        return tar.getmembers()


def write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


@pytest.mark.parametrize("hook", ["changes", "diff", "diff_size"])
def test_a_hidden_child_is_not_asked_about_its_record_parent(
    hook: str, driver: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(driver, "base", None, {"file": "x"})
    template = add_layer(driver, "template", base, {"own": "y"})
    driver.create_from_template("copy", template, base)
    driver.commit("copy")

    assert native(driver, hook, LayerRef("copy"), base) is None
    assert native(driver, hook, LayerRef("copy"), None) is None
    assert native(driver, hook, LayerRef("copy"), template) is not None
    assert list(driver.changes(LayerRef("copy"), base)) == list(driver.changes(template, base))


def test_after_an_ownership_pass_only_what_came_later_is_a_change(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(driver, "base", None, {"file": "x", "dir/other": "y"})
    driver.create("layer", base)
    driver.update_idmap("layer", IdMap(), MAPPED)
    layer = LayerRef("layer", MAPPED)
    assert native(driver, "changes", layer, base) is not None
    assert list(driver.changes(layer, base)) == []

    with driver.mounted("layer", read_only=False) as root:
        write(f"{root}/file", "changed")
        os.unlink(f"{root}/dir/other")
    driver.commit("layer")

    assert list(driver.changes(layer, base)) == [
        Change("/dir", ChangeKind.MODIFY),
        Change("/dir/other", ChangeKind.DELETE),
        Change("/file", ChangeKind.MODIFY),
    ]


@pytest.mark.parametrize("idmap", [IdMap(), MAPPED], ids=["unmapped", "shifted"])
def test_a_container_tells_the_same_changes_shifted_or_not(
    idmap: IdMap, driver: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(driver, "base", None, {"dir/file": "x", "deleted": "y"})
    driver.create("container", base, CreateOptions(idmap=idmap))
    driver.commit("container")
    path = driver.mount("container", MountOptions(idmap=idmap))
    os.chmod(f"{path}/dir/file", 0o600)
    os.unlink(f"{path}/deleted")
    driver.unmount("container", path)

    container = LayerRef("container", idmap)
    assert list(driver.changes(container, base)) == [
        Change("/deleted", ChangeKind.DELETE),
        Change("/dir", ChangeKind.MODIFY),
        Change("/dir/file", ChangeKind.MODIFY),
    ]
    found = [(member.name, member.uid, member.gid) for member in members(driver, container, base)]
    assert found == [(".wh.deleted", 0, 0), ("dir", 0, 0), ("dir/file", 0, 0)]
    assert driver.diff_size(container, base) == 1


def test_the_root_of_an_empty_container_is_no_change_before_its_first_mount(driver: GraphDriver) -> None:
    driver.create("container")
    driver.commit("container")
    container = LayerRef("container", MAPPED, shifted=True)
    before = list(driver.changes(container)), members(driver, container, None), driver.diff_size(container)
    with driver.mounted("container", idmap=MAPPED, read_only=False) as root:
        mounted = list(driver.changes(container))
        os.chown(root, 200_005, 200_005)

    assert (before, mounted) == (([], [], 0), [])
    assert [member.uid for member in members(driver, container, None)] == [5]


def test_a_new_owner_whose_host_id_is_the_old_container_id_is_a_change(driver: GraphDriver) -> None:
    driver.create("base")
    with driver.mounted("base", read_only=False) as root:
        write(f"{root}/file", "x")
        os.chown(f"{root}/file", 1, 1)
    driver.commit("base")
    overlapping = IdMap.parse(["0:1:1000", "1000:0:1", "1001:1001:64535"])
    driver.create("container", LayerRef("base"), CreateOptions(idmap=overlapping))
    driver.commit("container")
    with driver.mounted("container", idmap=overlapping, read_only=False) as root:
        os.chown(f"{root}/file", *overlapping.root())

    container = LayerRef("container", overlapping)
    assert list(driver.changes(container, LayerRef("base"))) == [Change("/file", ChangeKind.MODIFY)]


def test_files_without_their_content_are_packed_with_it(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(ext4_directory, ("mountopt", "metacopy=on,redirect_dir=on"))
    base = add_layer(driver, "base", None, {"file": "content"})
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        os.chmod(f"{root}/file", 0o600)
    driver.commit("layer")
    assert "trusted.overlay.metacopy" in os.listxattr(f"{driver.home}/layer/diff/file")

    with (
        driver.diff(LayerRef("layer"), base) as stream,
        tarfile.open(fileobj=io.BytesIO(stream.read())) as tar,
    ):
        packed = tar.extractfile("file")
        assert packed is not None
        assert packed.read() == b"content"


def test_renamed_directories_are_told_by_comparing_mounts(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    driver = open_overlay(ext4_directory, ("mountopt", "redirect_dir=on"))
    base = add_layer(driver, "base", None, {"old/file": "content"})
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        os.rename(f"{root}/old", f"{root}/new")
    driver.commit("layer")
    child = add_layer(driver, "child", LayerRef("layer"), {"new/more": "x"})

    for layer, parent in ((LayerRef("layer"), base), (child, LayerRef("layer"))):
        assert native(driver, "changes", layer, parent) is None
    assert [str(change) for change in driver.changes(LayerRef("layer"), base)] == [
        "Add /new",
        "Add /new/file",
        "Delete /old",
    ]
    assert [str(change) for change in driver.changes(child, LayerRef("layer"))] == [
        "Modify /new",
        "Add /new/more",
    ]


def test_disk_usage_is_what_du_says(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer", None, {"file": "x" * 100_000, "dir/file": "y"})
    os.link(f"{driver.home}/layer/diff/file", f"{driver.home}/layer/diff/linked")
    path = driver.mount("layer")
    found = driver.disk_usage("layer")
    driver.unmount("layer", path)

    told = subprocess.run(["du", "-s", "-B1", f"{driver.home}/layer"], check=True, capture_output=True)
    assert found.exclusive_bytes == int(told.stdout.split()[0])


def test_what_was_copied_up_by_reflink_is_shared(add_layer: AddLayer, xfs_directory: str) -> None:
    driver = open_driver("overlay", home=f"{xfs_directory}/overlay", run_root=f"{xfs_directory}/run")
    base = add_layer(driver, "base", None, {"file": "x" * 1_000_000})
    driver.create("copy", base)
    driver.update_idmap("copy", IdMap(), IdMap.parse(["0:100000:65536"]))
    driver.commit("copy")
    found = driver.disk_usage("copy")
    assert found.shared_bytes > 900_000
    assert found.exclusive_bytes < 100_000


def test_metadata_is_in_the_words_of_the_go_driver(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base")
    add_layer(driver, "child", base)

    assert dict(driver.metadata("child")) == {
        "LowerDir": os.path.realpath(f"{driver.home}/base/diff"),
        "MergedDir": f"{driver.home}/child/merged",
        "UpperDir": f"{driver.home}/child/diff",
        "WorkDir": f"{driver.home}/child/work",
    }
    assert "LowerDir" not in dict(driver.metadata("base"))
