"""What the demo imports: what it was given, or the Python installation that runs it."""

from __future__ import annotations

import io
import os
import stat
import sysconfig
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Material", "material"]


class Material(NamedTuple):
    """An image's source, in the terms of :func:`hostspec.images.import_image`."""

    source: str
    """``oci:DIR[:TAG]``, a root directory or a tar."""
    further_layers: tuple[str, ...]
    """Tars to put on top."""
    description: str
    """For people."""


def material(rootfs: str | None, image: str | None, scratch: str) -> Material:
    """Return what to import.

    Args:
        rootfs: A root directory or its tar, or ``None``.
        image: ``oci:DIR[:TAG]``, or ``None``. With neither: the standard library of this Python.
        scratch: Directory in which a tar may be written.
    """
    if image is not None:
        return Material(image, (), f"the image {image}")
    if rootfs is not None and not os.path.isdir(rootfs):
        return Material(rootfs, (), f"the root file system in {rootfs}")
    second = os.path.join(scratch, "second-layer.tar")
    if rootfs is not None:
        what = _write_second_layer(rootfs, second)
        return Material(rootfs, (second,), f"{rootfs}, and on top of it a layer that {what}")
    library = sysconfig.get_path("stdlib")
    first = os.path.join(scratch, "first-layer.tar")
    _write_library(library, first)
    what = _write_second_layer(library, second)
    return Material(first, (second,), f"{library}, and on top of it a layer that {what}")


def _write_library(root: str, path: str) -> None:
    """Write Python's standard library, without what was installed beside it, which may be gigabytes."""

    def choose(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if os.path.basename(member.name) in {"site-packages", "dist-packages"} else member

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname="./", filter=choose)


def _write_second_layer(root: str, path: str) -> str:
    """Write a layer that changes, deletes and renames a file of ``root``, and return what it does."""
    files = _ordinary_files(root)
    changed, deleted, renamed = (next(files) for _ in range(3))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, changed, b"changed by the second layer\n")
        _add_whiteout(tar, deleted)
        _add_whiteout(tar, renamed)
        with open(os.path.join(root, renamed), "rb") as file:
            _add(tar, f"{renamed}.renamed", file.read())
    return f"changes {changed}, deletes {deleted} and renames {renamed}"


def _ordinary_files(root: str) -> Iterator[str]:
    """Yield names of small regular files, in an order that is the same everywhere."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and 0 < found.st_size < 1 << 20:
                yield os.path.relpath(path, root)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _add_whiteout(tar: tarfile.TarFile, name: str) -> None:
    directory, base = os.path.split(name)
    tar.addfile(tarfile.TarInfo(os.path.join(directory, f".wh.{base}")))
