"""The root directory of a layer: whoever mounts sees that of the uppermost directory, and no other.

So a new upper directory must begin as a copy of the one below it, in everything but content.

Version 1.43 of containers/storage gives the root of whatever it mounts to the host's root (``get`` in
``drivers/overlay/overlay.go``, ``idtools.MkdirAllAs``), also where the layer is under an ID map. It is taken
for what it was, wherever that can be told.

Extended attributes go through :mod:`os`: importing the xattr package takes longer than making a layer.
"""

from __future__ import annotations

import os
import stat

from hostspec.idmap import IdMap

__all__ = [
    "content_is_shifted",
    "copy_root",
    "make_directory",
    "mask_root",
    "restore_root",
    "root_is_shifted",
    "root_is_untouched",
    "shift_root",
    "show_masked_root",
]

_NOT_COPIED = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "trusted.SGI_ACL_")
"""Overlayfs's notes are about the directory itself; XFS shows ACLs a second time, in its own form."""

_ACL = "system.posix_acl_"

_PROGRAMS_OVERRIDE = "user.fuseoverlayfs.override_stat"

_HOST_ROOT = (0, 0)

Owner = tuple[int, int]
"""Host UID and GID."""


def make_directory(path: str, *, mode: int = 0o755, owner: Owner = _HOST_ROOT) -> None:
    """Make a directory with exactly this mode and owner and no ACL, whatever umask and parent say."""
    os.mkdir(path, 0o700)
    for name in os.listxattr(path):
        if name.startswith(_ACL):
            os.removexattr(path, name)
    if owner != (os.geteuid(), os.getegid()):
        os.chown(path, *owner)
    os.chmod(path, mode)


def copy_root(source: str, target: str) -> None:
    """Give the directory ``target`` the owner, mode, extended attributes and times of ``source``.

    Args:
        source: A layer's ``diff``, or a directory without numbered ones beside it.
        target: The new directory.
    """
    found = os.stat(source)
    os.chown(target, *_true_owner(source))
    for name, value in _xattrs(source).items():
        os.setxattr(target, name, value)
    os.chmod(target, found.st_mode & 0o7777)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def mask_root(diff: str, mask: int) -> None:
    """Give a root other permission bits on disk, and keep owner and mode where a mount program looks."""
    from hostspec.archive.attributes import override_value  # noqa: PLC0415 - with a mount program only
    from hostspec.archive.whiteouts import OVERRIDE_XATTR  # noqa: PLC0415

    found = os.stat(diff)
    value = override_value((found.st_uid, found.st_gid), found.st_mode, b"5", 0, 0)
    os.setxattr(diff, OVERRIDE_XATTR, value)
    os.chmod(diff, mask)


def show_masked_root(diff: str) -> None:
    """Let a writable mount by fuse-overlayfs show the true mode of a root that :func:`mask_root` was given.

    It looks for an attribute of its own, and takes the mode on disk for the true one where the root has none.
    """
    from hostspec.archive.whiteouts import OVERRIDE_XATTR  # noqa: PLC0415 - with a mount program only

    present = os.listxattr(diff)
    if OVERRIDE_XATTR in present and _PROGRAMS_OVERRIDE not in present:
        uid, gid, mode = os.getxattr(diff, OVERRIDE_XATTR).decode().split(":")[:3]
        value = f"{uid}:{gid}:{stat.S_IFDIR | int(mode, 8):o}"
        os.setxattr(diff, _PROGRAMS_OVERRIDE, value.encode())


def restore_root(diff: str) -> None:
    """Give the root of a layer that an ownership pass was made on its owner again, if it was taken away."""
    owner = _true_owner(diff)
    if owner != _owner(diff):
        os.chown(diff, *owner)


def _true_owner(diff: str) -> Owner:
    owner = _owner(diff)
    if owner != _HOST_ROOT:
        return owner
    try:
        return _owner(f"{diff}1")
    except FileNotFoundError:
        return owner


def root_is_untouched(diff: str, below: str, idmap: IdMap) -> bool:
    """Tell whether nobody has changed a layer's root since it was made or first mounted under a map.

    Args:
        diff: The layer's own directory.
        below: The directory on which it stands, whose root it began with.
        idmap: The map of its mounts.
    """
    unmapped = _owner(below)
    modes = {os.stat(path).st_mode for path in (diff, below)}
    return (
        _owner(diff) in {unmapped, _under(idmap, unmapped), _HOST_ROOT}
        and len(modes) == 1
        and _xattrs(diff) == _xattrs(below)
    )


def root_is_shifted(idmap: IdMap, diff: str, below: str | None) -> bool:
    """Tell whether a layer's root has the host IDs of ``idmap``, as :func:`shift_root` gives it.

    Overlayfs does not map the upper directory: what is written through a mount under an ID map lies there
    under host IDs, the root too.

    Args:
        idmap: The map of the mount.
        diff: The layer's own directory.
        below: The directory on which it stands, whose root it began with; ``None`` where there is none.
    """
    owner = _owner(diff)
    unmapped = _owner(below) if below else _HOST_ROOT
    return owner == _under(idmap, unmapped) or (_is_inside(idmap, owner) and owner != unmapped)


def content_is_shifted(idmap: IdMap, diff: str) -> bool:
    """Tell whether what a layer holds has the host IDs of ``idmap``; false where it holds nothing."""
    with os.scandir(diff) as entries:
        found = [entry.stat(follow_symlinks=False) for entry in entries]
    # The kernel's own marks belong to the host's root under any map.
    files = [each for each in found if not (stat.S_ISCHR(each.st_mode) and each.st_rdev == 0)]
    return bool(files) and all(_is_inside(idmap, (each.st_uid, each.st_gid)) for each in files)


def shift_root(diff: str, idmap: IdMap) -> None:
    """Give a layer's root directory the host IDs of ``idmap``, so that the container's root owns it."""
    from hostspec.idshift import ACL_NAMES, IdShift  # noqa: PLC0415 - once in the life of a container

    found = os.stat(diff)
    os.chown(diff, *_under(idmap, (found.st_uid, found.st_gid)))
    shift = IdShift(IdMap(), idmap, squash=True)
    for name in ACL_NAMES.intersection(os.listxattr(diff)):
        os.setxattr(diff, name, shift.acl(os.getxattr(diff, name)))
    os.utime(diff, ns=(found.st_atime_ns, found.st_mtime_ns))


def _is_inside(idmap: IdMap, owner: Owner) -> bool:
    return idmap.uids.find_container(owner[0]) is not None and idmap.gids.find_container(owner[1]) is not None


def _under(idmap: IdMap, unmapped: Owner) -> Owner:
    """Return an owner under a map; the container's root in the place of one that the map leaves out."""
    uid, gid = (
        ranges.find_host(each) for ranges, each in zip((idmap.uids, idmap.gids), unmapped, strict=True)
    )
    root = idmap.root()
    return (root[0] if uid is None else uid, root[1] if gid is None else gid)


def _owner(path: str) -> Owner:
    found = os.stat(path)
    return found.st_uid, found.st_gid


def _xattrs(path: str) -> dict[str, bytes]:
    names = (name for name in os.listxattr(path) if not name.startswith(_NOT_COPIED))
    return {name: os.getxattr(path, name) for name in names}
