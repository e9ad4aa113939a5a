"""Binds of layers that are directories.

The shared mount of a layer that is not shifted is its directory itself. It is writable even where a
read-only one was asked for, as in the Go drivers of this kind.
"""

from __future__ import annotations

import os

from hostspec.directory_layers.shifting import ShiftedMounts
from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.kernel.capabilities import can_mount
from hostspec.values import MountOptions

__all__ = ["mount_privately", "refuse_unknown_options", "unmount_everything_of"]


def refuse_unknown_options(driver: str, options: MountOptions) -> None:
    """Refuse mount options that a directory cannot be mounted with.

    Args:
        driver: The driver's name, for messages.
        options: As for the hook ``mount``.

    Raises:
        InvalidRequest: A mount option is neither ``ro`` nor ``rw``.
    """
    if unknown := set(options.options) - {"ro", "rw"}:
        raise InvalidRequest(f"mount option {min(unknown)!r}", f"the driver {driver!r} knows only ro and rw")


def mount_privately(
    driver: str, tree: str, target: str, options: MountOptions, shifted: ShiftedMounts
) -> None:
    """Show a layer at a directory of the caller's; files keep the labels that they have.

    Args:
        driver: The driver's name, for messages.
        tree: The layer's directory.
        target: The caller's.
        options: As for the hook ``mount``.
        shifted: Mounts it under a map.

    Raises:
        OperationNotSupported: The privilege to mount is missing, or the map cannot be shown.
        OSError: The kernel refused; nothing is mounted.
    """
    if not can_mount():
        reason = "a private mount is a bind mount, which needs CAP_SYS_ADMIN"
        raise OperationNotSupported(driver, "mount privately", reason)
    read_only = options.read_only or "ro" in options.options
    if options.idmap:
        shifted.mount_at(tree, target, options.idmap, read_only=read_only)
        return
    from hostspec.kernel.mounts import bind  # noqa: PLC0415 - only who mounts needs it

    bind(tree, target, read_only=read_only)


def unmount_everything_of(tree: str) -> None:
    """Take down what shows a layer, and what is mounted below its directory.

    Lazily: whoever has files open there keeps them.

    Args:
        tree: The layer's directory, an absolute path.

    Raises:
        OSError: The kernel refused.
    """
    from hostspec.kernel.mountinfo import is_mountpoint, mount_points  # noqa: PLC0415 - only who removes needs it
    from hostspec.kernel.mounts import unmount  # noqa: PLC0415 - only who removes needs it

    tree = os.path.realpath(tree)
    for point in (*_binds_of(tree), *mount_points(tree)):
        # It may have gone with another one, if mounts propagate between the two.
        if is_mountpoint(point):
            unmount(point, lazy=True)


def _binds_of(tree: str) -> list[str]:
    """Return where ``tree`` is shown by a bind mount that this process sees."""
    from hostspec.kernel.mountinfo import mount_table  # noqa: PLC0415 - only who removes needs it

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
        # Not by its source: every tmpfs may say the same.
        if (each.root, each.device) == (root, below.device) and each.mount_point != tree
    ]


def _lies_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
