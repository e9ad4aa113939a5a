"""Mounting by fuse-overlayfs instead of the kernel's overlayfs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverFailed, InvalidRequest, OperationNotSupported, PrerequisitesMissing
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points, mount_table
from hostspec.kernel.mounts import unmount
from hostspec.kernel.self_binds import unbind_from_itself
from hostspec.values import CreateOptions, LayerRef, MountOptions, StoredIds

from .conftest import AddLayer, OpenOverlay
from .programs import running_in

MAPPED = IdMap.parse(["0:200000:65536"], ["0:300000:65536"])
OVERRIDE = "user.containers.override_stat"
_PATIENCE_SECONDS = 60


@pytest.fixture
def by_program(ext4_directory: str, open_overlay: OpenOverlay, mount_program: str) -> GraphDriver:
    """A driver that mounts by fuse-overlayfs."""
    return open_overlay(ext4_directory, ("mount_program", mount_program))


@pytest.fixture(autouse=True)
def _no_process_is_left(ext4_directory: str) -> Iterator[None]:
    """Every test ends without a process of the program; each ends soon after its mount has gone."""
    yield
    wait_until(lambda: running_in(ext4_directory) == [])
    # One that is ending has no command line any more, and may still keep the home busy, which then stays
    # bound on itself until somebody unmounts in it again.
    wait_until(lambda: is_unmounted(ext4_directory))


def is_unmounted(directory: str) -> bool:
    unbind_from_itself(f"{directory}/overlay")
    return mount_points(directory) == []


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def contents(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def mount_type(path: str) -> str:
    return next(entry.filesystem for entry in mount_table() if entry.mount_point == path)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def member(
    name: str, *, mode: int = 0o644, uid: int = 0, gid: int = 0, kind: bytes = b"0"
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.type = mode, uid, gid, kind
    return info


def test_the_program_shows_the_chain_and_takes_writes(by_program: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(by_program, "base", None, {"dir/below": "below", "shadowed": "old"})
    middle = add_layer(by_program, "middle", base, {"shadowed": "new"})
    add_layer(by_program, "top", middle)

    shared = by_program.mount("top")
    assert mount_type(shared) == "fuse.fuse-overlayfs"
    assert (contents(f"{shared}/dir/below"), contents(f"{shared}/shadowed")) == ("below", "new")
    with open(f"{shared}/written", "w", encoding="utf-8") as file:
        file.write("through the program")
    assert by_program.mount("top") == shared
    by_program.unmount("top", shared)

    with by_program.mounted("top") as root:
        assert contents(f"{root}/written") == "through the program"
        with pytest.raises(OSError, match="Read-only"):
            os.unlink(f"{root}/written")


def test_what_was_deleted_and_replaced_is_in_changes_and_diff(
    by_program: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(by_program, "base", None, {"deleted": "x", "dir/old": "x", "changed": "x"})
    by_program.create("layer", base)
    with by_program.mounted("layer", read_only=False) as root:
        os.unlink(f"{root}/deleted")
        os.unlink(f"{root}/dir/old")
        os.rmdir(f"{root}/dir")
        os.mkdir(f"{root}/dir")
        with open(f"{root}/changed", "w", encoding="utf-8") as file:
            file.write("something longer")
    by_program.commit("layer")
    layer = LayerRef("layer")

    found = {str(change) for change in by_program.changes(layer, base)}
    assert {"Delete /deleted", "Delete /dir/old", "Modify /changed"} <= found
    with by_program.diff(layer, base) as stream:
        by_program.create("applied", base)
        by_program.apply_diff("applied", stream)
    by_program.commit("applied")
    with by_program.mounted("applied") as root:
        assert sorted(os.listdir(root)) == ["changed", "dir"]
        assert os.listdir(f"{root}/dir") == []
    assert by_program.diff_size(layer, base) == len("something longer")


def test_a_layer_is_shown_under_a_map_and_written_without_it(
    by_program: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(by_program, "base", None, {"file": "x"})
    by_program.create("container", base)
    by_program.commit("container")
    answer = by_program.supports_shifting(MAPPED)
    assert (answer.possible, answer.stored, answer.shared_with_go) == (True, StoredIds.UNMAPPED, True)

    shared = by_program.mount("container", MountOptions(idmap=MAPPED))
    assert os.stat(shared).st_uid == 200_000
    assert (os.stat(f"{shared}/file").st_uid, os.stat(f"{shared}/file").st_gid) == (200_000, 300_000)
    os.chown(f"{shared}/file", 200_007, 300_008)
    by_program.unmount("container", shared)

    written = os.stat(f"{by_program.home}/container/diff/file")
    assert (written.st_uid, written.st_gid) == (7, 8)
    assert [str(each) for each in by_program.changes(LayerRef("container"), base)] == ["Modify /file"]


def test_a_single_id_is_given_to_every_file(by_program: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(by_program, "layer", None, {"file": "x"})
    os.chown(f"{by_program.home}/layer/diff/file", 7, 8)

    with by_program.mounted("layer", idmap=IdMap.parse(["0:1000:1"], ["0:2000:1"])) as root:
        assert (os.stat(f"{root}/file").st_uid, os.stat(f"{root}/file").st_gid) == (1000, 2000)


def test_a_copy_gets_its_owners_through_the_program(by_program: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(by_program, "base", None, {"inherited": "below"})
    template = add_layer(by_program, "template", base, {"own": "above"})
    by_program.create_from_template("copy", template, base, CreateOptions(idmap=MAPPED))
    by_program.update_idmap("copy", IdMap(), MAPPED)
    by_program.commit("copy")

    with by_program.mounted("copy") as root:
        for name in ("", "/inherited", "/own"):
            found = os.stat(f"{root}{name}")
            assert (found.st_uid, found.st_gid) == (200_000, 300_000)
        assert contents(f"{root}/own") == "above"
    assert list(by_program.changes(LayerRef("copy", MAPPED), template)) == []


def test_a_layer_without_parent_changes_its_map_through_the_program(
    by_program: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(by_program, "layer", None, {"file": "x"})
    by_program.update_idmap("layer", IdMap(), MAPPED)
    with by_program.mounted("layer") as root:
        assert os.stat(f"{root}/file").st_uid == 200_000


def test_300_lower_layers_below_a_long_path_are_shown(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer, mount_program: str
) -> None:
    directory = "/".join([ext4_directory, *["a long, odd: name" * 10] * 3])
    os.makedirs(directory)
    # The kernel makes the layers, as that is faster.
    driver = open_overlay(directory)
    top = add_layer(driver, "layer-0", None, {"file-0": "0"})
    for number in range(1, 301):
        files = {f"file-{number}": str(number)} if number % 100 == 0 else None
        top = add_layer(driver, f"layer-{number}", top, files)

    by_program = open_overlay(directory, ("mount_program", mount_program))
    with by_program.mounted("layer-300") as root:
        assert sorted(os.listdir(root)) == ["file-0", "file-100", "file-200", "file-300"]


def test_options_of_the_program_are_given_to_it_and_metacopy_is_not(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer, mount_program: str
) -> None:
    recorder = f"{ext4_directory}/recorder"
    with open(recorder, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "$@" >>{ext4_directory}/calls\nexec {mount_program} "$@"\n')
    os.chmod(recorder, 0o755)
    options = [("mountopt", "nodev,metacopy=on,fsync=0"), ("mount_program", recorder)]
    driver = open_overlay(ext4_directory, *options)
    add_layer(driver, "layer", None, {"file": "x"})

    path = driver.mount("layer", MountOptions(volatile=True, idmap=MAPPED, options=("noexec",)))
    driver.unmount("layer", path)

    call = contents(f"{ext4_directory}/calls").splitlines()[-1]
    assert call == (
        f"-o lowerdir=layer/empty,upperdir={driver.home}/layer/diff,workdir={driver.home}/layer/work,"
        f"nodev,noexec,fsync=0,volatile,uidmapping=0:200000:65536,gidmapping=0:300000:65536 {path}"
    )


def test_directories_are_no_mount_options_with_a_program_either(
    by_program: GraphDriver, add_layer: AddLayer
) -> None:
    add_layer(by_program, "layer")
    with pytest.raises(InvalidRequest, match="upperdir"):
        by_program.mount("layer", MountOptions(options=("upperdir=/etc",)))


def test_a_program_that_is_missing_is_said_to_be_missing(
    ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    with pytest.raises(PrerequisitesMissing, match=r"overlay\.mount_program=/nowhere/fuse-overlayfs"):
        open_overlay(ext4_directory, ("mount_program", "/nowhere/fuse-overlayfs"))


def test_what_a_failing_program_says_is_in_the_error(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    failing = f"{ext4_directory}/failing"
    with open(failing, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\necho 'out of fuses' >&2\nexit 3\n")
    os.chmod(failing, 0o755)
    driver = open_overlay(ext4_directory, ("mount_program", failing))
    add_layer(driver, "layer")

    with pytest.raises(DriverFailed, match="failing: out of fuses"):
        driver.mount("layer")


def test_a_mount_whose_program_was_killed_is_made_again(by_program: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(by_program, "layer", None, {"file": "x"})
    path = by_program.mount("layer")
    (process,) = running_in(by_program.home)
    os.kill(process, 9)
    wait_until(lambda: running_in(by_program.home) == [])

    assert by_program.mount("layer") == path
    assert contents(f"{path}/file") == "x"
    by_program.unmount("layer", path)


def test_a_store_that_a_program_wrote_is_mounted_by_one_without_the_option(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer, by_program: GraphDriver
) -> None:
    add_layer(by_program, "layer", None, {"file": "x"})

    driver = open_overlay(ext4_directory)
    path = driver.mount("layer")
    assert mount_type(path) == "fuse.fuse-overlayfs"
    driver.unmount("layer", path)


def test_a_store_that_a_program_wrote_is_not_opened_without_any(
    ext4_directory: str,
    open_overlay: OpenOverlay,
    add_layer: AddLayer,
    by_program: GraphDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_layer(by_program, "layer", None, {"file": "x"})
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(PrerequisitesMissing, match=r"has-mount-program.*fuse-overlayfs"):
        open_overlay(ext4_directory)


def test_a_program_works_where_the_kernels_overlayfs_does_not(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer, mount_program: str
) -> None:
    merged = f"{ext4_directory}/merged"
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{ext4_directory}/{name}")
    parts = ",".join(f"{each}dir={ext4_directory}/{each}" for each in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "-o", parts, "overlay", merged], check=True)
    try:
        driver = open_overlay(merged, ("mount_program", mount_program))
        add_layer(driver, "layer", None, {"file": "x"})
        with driver.mounted("layer") as root:
            assert contents(f"{root}/file") == "x"
        driver.cleanup()
    finally:
        wait_until(lambda: running_in(merged) == [])
        unmount(merged, patience=_PATIENCE_SECONDS)


@pytest.mark.parametrize(("value", "mode"), [("shared", 0o755), ("private", 0o700), ("0750", 0o750)])
def test_force_mask_keeps_owner_and_mode_apart(
    value: str,
    mode: int,
    ext4_directory: str,
    open_overlay: OpenOverlay,
    mount_program: str,
) -> None:
    driver = open_overlay(ext4_directory, ("mount_program", mount_program), ("force_mask", value))
    driver.create("layer", None)
    members = (
        (member("dir", mode=0o1777, uid=3, gid=4, kind=b"5"), b""),
        (member("dir/file", mode=0o4711, uid=5, gid=6), b"content"),
    )
    driver.apply_diff("layer", tar_of(*members))
    driver.commit("layer")

    diff = f"{driver.home}/layer/diff"
    for path in (diff, f"{diff}/dir", f"{diff}/dir/file"):
        assert os.stat(path).st_mode & 0o7777 == mode
    assert os.getxattr(diff, OVERRIDE) == b"0:0:0755:dir"
    assert os.getxattr(f"{diff}/dir", OVERRIDE) == b"3:4:01777:dir"
    assert os.getxattr(f"{diff}/dir/file", OVERRIDE) == b"5:6:04711:file"
    with driver.mounted("layer") as root:
        shown = [os.stat(f"{root}{name}") for name in ("", "/dir", "/dir/file")]
        assert [(each.st_mode & 0o7777, each.st_uid, each.st_gid) for each in shown] == [
            (0o755, 0, 0),
            (0o1777, 3, 4),
            (0o4711, 5, 6),
        ]
    with driver.diff(LayerRef("layer"), None) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        found = {each.name: (each.mode, each.uid, each.gid, each.pax_headers) for each in archive}
    assert {"dir": found["dir"][:3], "dir/file": found["dir/file"][:3]} == {
        "dir": (0o1777, 3, 4),
        "dir/file": (0o4711, 5, 6),
    }
    assert not any("override_stat" in key for each in found.values() for key in each[3])


def test_a_layer_over_masked_ones_changes_only_what_it_changes(
    ext4_directory: str, open_overlay: OpenOverlay, mount_program: str
) -> None:
    driver = open_overlay(ext4_directory, ("mount_program", mount_program), ("force_mask", "private"))
    driver.create("base", None)
    driver.apply_diff(
        "base", tar_of((member("file", mode=0o640, uid=5, gid=6), b"x"), (member("other"), b""))
    )
    driver.commit("base")
    base = LayerRef("base")
    driver.create("layer", base)
    with driver.mounted("layer", read_only=False) as root:
        os.chown(f"{root}/file", 7, 8)
    driver.commit("layer")

    assert [str(each) for each in driver.changes(LayerRef("layer"), base)] == ["Modify /file"]
    with driver.mounted("layer") as root:
        found = os.stat(f"{root}/file")
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 7, 8)


def test_force_mask_is_refused_without_a_program(ext4_directory: str, open_overlay: OpenOverlay) -> None:
    with pytest.raises(OperationNotSupported, match=r"overlay\.force_mask=755.*mount program"):
        open_overlay(ext4_directory, ("force_mask", "shared"))


@pytest.mark.parametrize("value", ["public", "0888", "77777"])
def test_a_mask_that_is_none_is_refused(
    value: str, ext4_directory: str, open_overlay: OpenOverlay, mount_program: str
) -> None:
    with pytest.raises(InvalidRequest, match=value):
        open_overlay(ext4_directory, ("mount_program", mount_program), ("force_mask", value))
