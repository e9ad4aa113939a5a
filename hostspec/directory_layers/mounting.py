"""Mounts of layers that are directories: the directory itself, or a bind of it."""

from __future__ import annotations

import os

from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.kernel.capabilities import can_mount
from hostspec.values import MountOptions

__all__ = ["mount_directory", "unmount_directory", "unmount_everything_of"]


def mount_directory(driver: str, tree: str, options: MountOptions) -> str:
    """Return a layer's own directory as its shared mount, or bind it to the caller's.

    The shared mount is writable even where a read-only one was asked for, and files keep the
    labels that they have, as in the Go drivers of this kind.

    Args:
        driver: The driver's name, for messages.
        tree: The layer's directory.
        options: As for the hook ``mount``.

    Raises:
        InvalidRequest: A mount option is unknown.
        OperationNotSupported: A map is asked for, or a private mount without the privilege to make one.
        OSError: The kernel refused; nothing is mounted.
    """
    if options.idmap:
        reason = "layers are shown with the owners that they have on disk; make a mapped copy instead"
        raise OperationNotSupported(driver, f"mount under the ID map {options.idmap}", reason)
    if unknown := set(options.options) - {"ro", "rw"}:
        raise InvalidRequest(f"mount option {min(unknown)!r}", f"the driver {driver!r} knows only ro and rw")
    if options.target is None:
        return tree
    if not can_mount():
        reason = "a private mount is a bind mount, which needs CAP_SYS_ADMIN"
        raise OperationNotSupported(driver, "mount privately", reason)
    from hostspec.kernel.mounts import bind  # noqa: PLC0415 - only who mounts needs it

    bind(tree, options.target, read_only=options.read_only or "ro" in options.options)
    return options.target


def unmount_directory(path: str) -> None:
    """Take down what :func:`mount_directory` bound to a caller's directory, if it is still there.

    Raises:
        OSError: EBUSY while it is used.
    """
    from hostspec.kernel.mounts import is_mountpoint, unmount  # noqa: PLC0415 - only who mounts needs it

    if is_mountpoint(path):
        unmount(path)


def unmount_everything_of(tree: str) -> None:
    """Take down what shows a layer, and what is mounted below its directory.

    Lazily: whoever has files open there keeps them.

    Args:
        tree: The layer's directory, an absolute path.

    Raises:
        OSError: The kernel refused.
    """
    from hostspec.kernel.mounts import (  # noqa: PLC0415 - only who removes needs it
        is_mountpoint,
        mount_points,
        unmount,
    )

    tree = os.path.realpath(tree)
    for point in (*_binds_of(tree), *mount_points(tree)):
        # It may have gone with another one, if mounts propagate between the two.
        if is_mountpoint(point):
            unmount(point, lazy=True)


def _binds_of(tree: str) -> list[str]:
    """Return where ``tree`` is shown by a bind mount that this process sees."""
    from hostspec.kernel.mounts import mount_table  # noqa: PLC0415 - only who removes needs it

    table = mount_table()
    # Of several mounts above a path, the deepest counts; of several at one place, the last.
    below = max(
        (each for each in reversed(table) if _lies_below(tree, each.mount_point)),
        key=lambda each: len(each.mount_point),
    )
    inside = os.path.relpath(tree, below.mount_point)
    root = os.path.normpath(os.path.join(below.root, inside))
    return [
        each.mount_point
        for each in reversed(table)
        if (each.root, each.filesystem, each.source) == (root, below.filesystem, below.source)
        and each.mount_point != tree
    ]


def _lies_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
