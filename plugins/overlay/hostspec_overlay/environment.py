"""What this process may do, and what lies below the home: looked at without mounting anything."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from hostspec.errors import DriverNotSupported, PrerequisitesMissing, WrongFilesystem
from hostspec_overlay.options import DRIVER, MountChoices

if TYPE_CHECKING:
    from hostspec.archive.whiteouts import WhiteoutForm

__all__ = [
    "BackingMount",
    "backing_mount",
    "check_usable",
    "enforces_limits",
    "in_user_namespace",
    "usual_choices",
    "whiteout_form",
]

_CAP_SYS_ADMIN = 1 << 21
_WHOLE_RANGE = ["0", "0", "4294967295"]

# None of these can hold an upper directory (ovl_dentry_remote, ovl_check_rename_whiteout … in fs/overlayfs).
_NOT_BELOW_OVERLAY = frozenset(
    {"9p", "aufs", "cifs", "ecryptfs", "exfat", "msdos", "nfs", "nfs4", "overlay", "smb3", "vfat"}
)

_WITH_PROJECTS = frozenset({"ext4", "xfs"})
# As the mount table shows it; XFS has pqnoenforce where it only counts.
_QUOTA_OPTIONS = frozenset({"prjquota", "pquota"})


def check_usable(home: str, *, by_program: bool = False) -> BackingMount:
    """Refuse a machine or a place where overlayfs cannot work. Nothing is written.

    Args:
        home: The driver's home; need not exist yet.
        by_program: A program mounts, so that the kernel's overlayfs and its limits do not matter.

    Returns:
        What the home lies on.

    Raises:
        DriverNotSupported: The kernel has no overlayfs.
        PrerequisitesMissing: This process may not mount.
        WrongFilesystem: The file system of ``home`` cannot hold layers.
    """
    if not _may_mount():
        raise PrerequisitesMissing(
            DRIVER, "mounting needs CAP_SYS_ADMIN: run as root, or in a user namespace, by hostspec unshare"
        )
    backing = backing_mount(home)
    if by_program:
        return backing
    if not _kernel_has_overlay():
        raise DriverNotSupported(DRIVER, "this kernel has no overlayfs (module 'overlay')")
    if backing.filesystem in _NOT_BELOW_OVERLAY:
        raise WrongFilesystem(
            DRIVER,
            f"{home} lies on {backing.filesystem}, which cannot hold overlay layers; use ext4, xfs or btrfs",
        )
    return backing


def enforces_limits(backing: BackingMount) -> bool:
    """Tell whether layers can be limited: project quotas are enforced, and this process may set them."""
    return (
        backing.filesystem in _WITH_PROJECTS
        and not _QUOTA_OPTIONS.isdisjoint(backing.super_options)
        and not in_user_namespace()
    )


def usual_choices(chosen: MountChoices) -> MountChoices:
    """Return the user's mount options as far as this process can have them.

    In a user namespace overlayfs keeps its notes in ``user.*`` attributes, and the kernel refuses to follow
    metacopy and redirect notes that anybody can write.
    """
    if not in_user_namespace():
        return chosen
    return chosen.without_overlay("metacopy").without_overlay("redirect_dir").with_overlay("userxattr")


def whiteout_form() -> WhiteoutForm:
    """Return how whiteouts and opaque directories are to be written here."""
    from hostspec.archive.whiteouts import WhiteoutForm  # noqa: PLC0415 - only for who reads or writes layers

    return WhiteoutForm.USER_OVERLAY if in_user_namespace() else WhiteoutForm.OVERLAY


@cache
def in_user_namespace() -> bool:
    """Tell whether this process is in a user namespace other than the machine's first."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != _WHOLE_RANGE
    except FileNotFoundError:
        return False


class BackingMount(NamedTuple):
    """The mount on which a home lies."""

    filesystem: str
    """Type of the file system, or ``""`` where the mount table does not tell."""
    super_options: tuple[str, ...]
    """Options of the file system."""


def backing_mount(path: str) -> BackingMount:
    """Return the mount on which ``path`` lies or will lie."""
    # By the mount table, not statfs(2): this runs at every start, and calling the C library costs 4 ms.
    from hostspec.kernel.mountinfo import mount_holding  # noqa: PLC0415

    found = mount_holding(os.path.realpath(path))
    return BackingMount(found.filesystem, found.super_options) if found else BackingMount("", ())


def _may_mount() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_SYS_ADMIN)
    return True


def _kernel_has_overlay() -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        if any(line.split()[-1] == "overlay" for line in file):
            return True
    from hostspec.kernel.mountfds import fsopen  # noqa: PLC0415 - only where the module is not loaded yet

    try:
        os.close(fsopen("overlay"))  # loads the module
    except OSError:
        return False
    return True
