"""EROFS images: made by mkfs.erofs(1), mounted by the kernel without any mount point."""

from __future__ import annotations

import errno
import os
import subprocess

from hostspec.kernel.loop_devices import loop_device
from hostspec.kernel.mountfds import fsconfig_create, fsconfig_string, fsmount, fsopen

__all__ = ["COMPRESSIONS", "MKFS", "make_image", "mount_image"]

MKFS = "mkfs.erofs"

COMPRESSIONS = {"none": (), "lz4": ("-zlz4",), "lz4hc": ("-zlz4hc",)}
"""Arguments for each way to compress."""

_LONGEST_NAME_BYTES = 255


def make_image(image: str | int, tree: str, compression: str) -> bool:
    """Write a tree into an image, everything kept: owners, times, links, devices and all extended attributes.

    Among these are overlayfs's own marks, 0:0 devices for whiteouts and ``trusted.overlay.opaque``:
    the kernel reads them in an image as in a directory.

    Args:
        image: Path of a new file, or descriptor of an empty one.
        tree: The directory.
        compression: One of :data:`COMPRESSIONS`.

    Returns:
        False if there is a file name that the program cannot write; a part of an image is there then.

    Raises:
        OSError: The program is missing or failed; with its own words.
    """
    descriptors = (image,) if isinstance(image, int) else ()
    path = f"/proc/self/fd/{image}" if isinstance(image, int) else image
    command = [MKFS, "--quiet", *COMPRESSIONS[compression], path, tree]
    program = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        errors="replace",
        pass_fds=descriptors,
        check=False,
    )
    if program.returncode and not _has_longest_name(tree):
        reason = program.stderr.strip() or f"exit status {program.returncode}"
        raise OSError(errno.EIO, f"{MKFS}: {reason}")
    return program.returncode == 0


def _has_longest_name(tree: str) -> bool:
    """Tell whether a name has the full 255 bytes, which version 1.5 of the program refuses."""
    return any(
        len(os.fsencode(name)) == _LONGEST_NAME_BYTES
        for _, directories, files, _ in os.fwalk(tree)
        for name in (*directories, *files)
    )


def mount_image(image_fd: int) -> int:
    """Return a detached mount of an image: in no mount table, and gone with its descriptor.

    By the file itself, which the kernel can since 6.12, or else through a loop device.

    Raises:
        OSError: The kernel refused.
    """
    try:
        # A text may have 255 bytes, and the path of a layer has more.
        return _mount(f"/proc/self/fd/{image_fd}")
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
    with loop_device(image_fd, read_only=True) as device:
        return _mount(device)


def _mount(source: str) -> int:
    context = fsopen("erofs")
    try:
        fsconfig_string(context, "source", source)
        fsconfig_create(context)
        return fsmount(context)
    finally:
        os.close(context)
