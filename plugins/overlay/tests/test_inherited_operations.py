"""What is written without a mount, of layers that overlayfs itself wrote, beside what the kernel makes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostspec.testing.layers import Made
from hostspec.testing.samples import MAPPED, SMALL
from hostspec.values import LayerRef

from .conftest import OpenOverlay
from .test_inherited import Both

PATHS = st.sampled_from(["/a", "/b", "/c", "/a/b", "/a/c", "/b/a", "/a/b/c", "/a/b/a"])
# Written through a mount, the first of them are notes of an overlay within a container.
XATTRS = ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "trusted.note")


class Operation(NamedTuple):
    """Something that a container does; what cannot be done is not."""

    name: str
    path: str
    other: str
    number: int


def _write(place: str, _: str, number: int) -> None:
    with open(_no_special_file(place), "wb") as file:
        file.write(b"%d" % number * (number % 3 * 2000))


def _append(place: str, _: str, number: int) -> None:
    with open(_no_special_file(place), "r+b") as file:
        file.seek(number * 5000)
        file.write(b"more")


def _no_special_file(place: str) -> str:
    """Return a path, unless whoever opens it would wait, or speak with a device."""
    if os.path.exists(place) and not os.path.isfile(place):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return place


def _remove(place: str, _: str, __: int) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    else:
        os.unlink(place)


def _empty(place: str, _: str, __: int) -> None:
    if not os.path.isdir(place):  # rmtree() would open it, and wait for who writes to a fifo
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    shutil.rmtree(place)
    os.mkdir(place)


def _special(place: str, _: str, number: int) -> None:
    os.mknod(place, (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR)[number % 3] | 0o640, os.makedev(1, 3))


def _chmod(place: str, _: str, number: int) -> None:
    if not os.path.islink(place):
        os.chmod(place, (0o4755, 0o2711, 0o1777, 0o600)[number % 4])


def _note(place: str, _: str, number: int) -> None:
    os.setxattr(place, XATTRS[number % 4], b"y", follow_symlinks=False)


OPERATIONS: dict[str, Callable[[str, str, int], None]] = {
    "write": _write,
    "append": _append,
    "mkdir": lambda place, _, __: os.mkdir(place),
    "remove": _remove,
    "empty": _empty,
    "special": _special,
    "symlink": lambda place, _, __: os.symlink("b", place),
    "rename": lambda place, other, _: os.rename(place, other),
    "link": lambda place, other, _: os.link(place, other, follow_symlinks=False),
    "chown": lambda place, _, number: os.lchown(place, number, number + 1),
    "chmod": _chmod,
    "note": _note,
}

HISTORIES = st.lists(
    st.builds(Operation, st.sampled_from(sorted(OPERATIONS)), PATHS, PATHS, st.integers(0, 9)),
    min_size=1,
    max_size=12,
)


def perform(root: str, history: list[Operation]) -> list[int | None]:
    """Do one thing after another, and return which errors there were."""
    errors: list[int | None] = []
    for each in history:
        errors.append(None)
        try:
            OPERATIONS[each.name](root + each.path, root + each.other, each.number)
        except OSError as error:
            errors[-1] = error.errno
    return errors


def shown(root: str) -> dict[str, tuple[object, ...]]:
    """Return what a mount shows that is not the time of day."""
    inodes: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            place = f"{directory}/{name}"
            inode = os.lstat(place)
            content = b""
            if stat.S_ISREG(inode.st_mode):
                with open(place, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(inode.st_mode):
                content = os.fsencode(os.readlink(place))
            xattrs = {key: os.getxattr(place, key, follow_symlinks=False) for key in _xattrs(place)}
            first = inodes.setdefault(inode.st_ino, place.removeprefix(root))
            owner = (inode.st_uid, inode.st_gid)
            found[place.removeprefix(root)] = (inode.st_mode, owner, inode.st_rdev, content, xattrs, first)
    return found


def _xattrs(place: str) -> list[str]:
    with suppress(OSError):
        return os.listxattr(place, follow_symlinks=False)
    return []


@pytest.mark.parametrize("mountopt", ["metacopy=on", ""])
def test_what_containers_did_becomes_what_the_kernel_would_have_made(
    mountopt: str, ext4_directory: str, open_overlay: OpenOverlay
) -> None:
    both = Both(lambda *more: open_overlay(ext4_directory, *more), ("mountopt", mountopt))
    driver = both.direct.driver
    numbers = iter(range(1 << 20))

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(histories=st.lists(HISTORIES, min_size=1, max_size=4), later=HISTORIES)
    def compare(histories: list[list[Operation]], later: list[Operation]) -> None:
        number = next(numbers)
        made: Made | None = None
        for level, history in enumerate(histories):
            layer = LayerRef(f"layer-{number}-{level}")
            driver.create(layer.layer_id, made.layer if made else None)
            with driver.mounted(layer.layer_id, read_only=False) as root:
                perform(root, history)
            driver.commit(layer.layer_id)
            made = Made(layer, SMALL, made)
        assert made is not None

        copies = both.copy(made, MAPPED, f"copy-{number}")

        assert both.on_disk(copies[0]) == both.on_disk(copies[1])
        results = []
        for copy in copies:
            container = LayerRef(f"{copy.layer_id}-container", MAPPED)
            driver.create(container.layer_id, copy.layer)
            with driver.mounted(container.layer_id, read_only=False) as root:
                before = shown(root)
                errors = perform(root, later)
                after = shown(root)
            changes = [str(each) for each in driver.changes(container, copy.layer)]
            results.append((before, errors, after, changes))
            assert list(driver.changes(copy.layer, made.layer)) == []
        assert results[0] == results[1]

    compare()
