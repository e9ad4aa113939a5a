from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hostspec.kernel.mountfds import (
    fsconfig_create,
    fsconfig_fd,
    fsconfig_flag,
    fsconfig_string,
    fscontext_log,
    fsmount,
    fsopen,
    move_mount,
    open_tree,
    set_attributes,
)
from hostspec.kernel.mountinfo import is_mountpoint, mount_options_at, mount_points, mount_table
from hostspec.kernel.mounts import (
    MAX_MOUNT_DATA_BYTES,
    MS_NODEV,
    MS_NOSUID,
    bind,
    mount,
    private_mount_namespace,
    unmount,
    unmount_all,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def test_an_option_string_that_the_kernel_would_cut_off_is_refused(tmp_path: Path) -> None:
    options = "size=64k," + "x" * MAX_MOUNT_DATA_BYTES
    with pytest.raises(OSError, match="mount options are") as caught:
        mount("none", str(tmp_path), "tmpfs", data=options)
    assert caught.value.errno == errno.E2BIG
    assert not is_mountpoint(str(tmp_path))


def test_the_longest_option_string_reaches_the_kernel_whole(tmp_path: Path) -> None:
    # The last option counts: it would be lost if the string were cut.
    last = "size=64k"
    padding = "size=" + "1".rjust(MAX_MOUNT_DATA_BYTES - len(f"size=m,{last}"), "0") + "m"
    options = f"{padding},{last}"
    assert len(options) == MAX_MOUNT_DATA_BYTES
    mount("none", str(tmp_path), "tmpfs", data=options)
    try:
        assert "size=64k" in mount_options_at(str(tmp_path))
    finally:
        unmount(str(tmp_path))


def test_a_refused_mount_names_its_target(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        mount("none", str(tmp_path), "no such file system")
    assert caught.value.filename == str(tmp_path)


def test_a_busy_mount_is_unmounted_only_lazily(tmp_path: Path) -> None:
    mount("none", str(tmp_path), "tmpfs")
    user = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="busy"):
            unmount(str(tmp_path))
        unmount(str(tmp_path), lazy=True)
        assert not is_mountpoint(str(tmp_path))
    finally:
        os.close(user)


def test_a_mount_that_is_used_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    mount("none", str(tmp_path), "tmpfs")
    user = os.open(tmp_path, os.O_RDONLY)
    ending = threading.Timer(0.1, os.close, [user])
    ending.start()
    unmount(str(tmp_path), patience=60)
    ending.join()
    assert not is_mountpoint(str(tmp_path))


def test_everything_below_is_unmounted_even_what_is_busy(tmp_path: Path) -> None:
    mount("none", str(tmp_path), "tmpfs")
    (tmp_path / "inner").mkdir()
    mount("none", str(tmp_path / "inner"), "tmpfs")
    user = os.open(tmp_path / "inner", os.O_RDONLY)
    try:
        unmount_all(str(tmp_path))
        assert mount_points(str(tmp_path)) == []
    finally:
        os.close(user)


def test_a_link_is_not_unmounted_through(tmp_path: Path) -> None:
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    link.symlink_to(place)
    mount("none", str(place), "tmpfs")
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            unmount(str(link))
        assert is_mountpoint(str(place))
    finally:
        unmount(str(place))


def test_a_read_only_bind_refuses_writes_and_keeps_the_other_flags(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mount("none", str(source), "tmpfs", MS_NOSUID | MS_NODEV)
    try:
        bind(str(source), str(target), read_only=True)
        assert {"ro", "nosuid", "nodev"} <= set(mount_options_at(str(target)))
        with pytest.raises(OSError, match="Read-only"):
            (target / "file").touch()
        (source / "file").touch()
        assert (target / "file").exists()
    finally:
        unmount_all(str(tmp_path))


def test_a_private_namespace_hides_its_mounts_from_other_threads(tmp_path: Path) -> None:
    seen_inside: list[str] = []

    def mount_privately() -> None:
        private_mount_namespace()
        mount("none", str(tmp_path), "tmpfs")
        with open("/proc/thread-self/mountinfo") as table:
            seen_inside.extend(line for line in table if str(tmp_path) in line)

    thread = threading.Thread(target=mount_privately)
    thread.start()
    thread.join()
    assert len(seen_inside) == 1
    assert not is_mountpoint(str(tmp_path))


def test_a_file_system_is_configured_and_mounted_by_descriptors(tmp_path: Path) -> None:
    context = fsopen("tmpfs")
    fsconfig_string(context, "size", "64k")
    fsconfig_create(context)
    before = len(mount_table())
    detached = fsmount(context)
    os.close(context)
    assert len(mount_table()) == before
    os.close(os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=detached))
    move_mount(detached, str(tmp_path))
    os.close(detached)
    try:
        assert (tmp_path / "file").exists()
        assert "size=64k" in mount_options_at(str(tmp_path))
    finally:
        unmount(str(tmp_path))


def test_a_mount_is_moved_to_a_descriptor_and_its_attributes_are_changed(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    context = fsopen("tmpfs")
    fsconfig_create(context)
    detached = fsmount(context)
    set_attributes(detached, read_only=True)
    move_mount(detached, place)
    try:
        assert "ro" in mount_options_at(str(tmp_path))
        set_attributes(detached, read_only=False)
        (tmp_path / "file").touch()
    finally:
        for descriptor in (place, context, detached):
            os.close(descriptor)
        unmount(str(tmp_path))


def test_the_kernels_own_words_are_in_the_error() -> None:
    context = fsopen("overlay")
    try:
        with pytest.raises(OSError, match=r"bogus: Invalid argument \(overlay: Unknown parameter 'bogus'\)"):
            fsconfig_string(context, "bogus", "value")
        assert fscontext_log(context) == ""
    finally:
        os.close(context)


def test_a_step_about_which_the_kernel_says_nothing_is_named_all_the_same() -> None:
    context = fsopen("overlay")
    try:
        with pytest.raises(OSError, match=r"create: Invalid argument$"):
            fsconfig_create(context)
    finally:
        os.close(context)


def test_an_unknown_file_system_is_named() -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        fsopen("no such file system")
    assert caught.value.filename == "no such file system"


def test_layers_can_be_given_as_descriptors_of_detached_clones(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("below")
    # The kernel wants upper and work directory on one mount, hence one clone of their parent.
    descriptors = [open_tree(str(tmp_path), clone=True)]
    descriptors += [open_tree(name, clone=False, dirfd=descriptors[0]) for name in ("lower", "upper", "work")]
    context = fsopen("overlay")
    try:
        for key, descriptor in zip(("lowerdir+", "upperdir", "workdir"), descriptors[1:], strict=True):
            fsconfig_fd(context, key, descriptor)
        fsconfig_flag(context, "volatile")
        fsconfig_create(context)
        descriptors.append(fsmount(context))
        move_mount(descriptors[-1], str(tmp_path / "merged"))
        assert (tmp_path / "merged/file").read_text() == "below"
    finally:
        for descriptor in (*descriptors, context):
            os.close(descriptor)
        unmount_all(str(tmp_path))


def test_every_descriptor_is_closed_on_exec(tmp_path: Path) -> None:
    context = fsopen("tmpfs")
    fsconfig_create(context)
    descriptors = [context, fsmount(context), open_tree(str(tmp_path), clone=True)]
    descriptors.append(open_tree(str(tmp_path), clone=False))
    descriptors.append(open_tree("", clone=True, dirfd=descriptors[1]))
    inheritable = [os.get_inheritable(each) for each in descriptors]
    for each in descriptors:
        os.close(each)
    assert not any(inheritable)
