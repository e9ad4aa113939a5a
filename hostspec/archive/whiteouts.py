"""How a layer says that something of the layers below is gone.

In a tar, names say it (OCI image specification, "Layer", section "Whiteouts"):

- ``dir/.wh.NAME``: ``dir/NAME`` of the layers below is not there any more;
- ``dir/.wh..wh..opq``: nothing of ``dir`` of the layers below is there any more;
- other names that begin with ``.wh..wh.`` are book-keeping of aufs and mean nothing.

On disk it depends on who reads the directory: see :class:`WhiteoutForm`. The overlay forms are
those of the kernel's ``Documentation/filesystems/overlayfs.rst``, "Whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from enum import Enum

__all__ = [
    "AUFS_PREFIX",
    "OPAQUE_MARKER",
    "OVERRIDE_XATTR",
    "WHITEOUT_PREFIX",
    "WhiteoutForm",
    "is_carried_xattr",
    "is_whiteout_device",
]

WHITEOUT_PREFIX = ".wh."
"""A member of a tar whose last name begins so deletes the name that follows."""

AUFS_PREFIX = ".wh..wh."
"""Names that begin so are no deletions, but book-keeping of aufs."""

OPAQUE_MARKER = ".wh..wh..opq"
"""A member of that name empties its directory of what the layers below have there."""

OVERRIDE_XATTR = "user.containers.override_stat"
"""Where fuse-overlayfs and the Go library look for owner and mode under ``force_mask``."""

OVERLAY_XATTR_PREFIXES = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", OVERRIDE_XATTR)
"""Extended attributes that steer overlayfs or fuse-overlayfs; an image may neither set nor carry them."""

_CARRIED_PREFIXES = ("user.", "security.", "trusted.", "system.posix_acl_")
_MACHINE_BOUND = frozenset(
    {"security.selinux", "security.evm", "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"}
)


class WhiteoutForm(Enum):
    """How deletions are written into a directory on disk."""

    PLAIN = "plain"
    """The directory is a whole tree, or the mount of one: what is deleted is removed."""
    OVERLAY = "overlay"
    """The upper directory of an overlay: 0:0 character devices and ``trusted.overlay.opaque``."""
    USER_OVERLAY = "user-overlay"
    """The same, mounted with ``userxattr``: 0:0 character devices and ``user.overlay.opaque``."""

    @property
    def xattr_prefix(self) -> str:
        """The prefix of overlayfs's extended attributes in this form.

        Raises:
            ValueError: The form is ``PLAIN``, which has none.
        """
        if self is WhiteoutForm.PLAIN:
            raise ValueError("a plain tree has no overlay attributes")
        return "user.overlay." if self is WhiteoutForm.USER_OVERLAY else "trusted.overlay."


def is_whiteout_device(status: os.stat_result) -> bool:
    """Tell whether this is a 0:0 character device, overlayfs's mark for a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_carried_xattr(name: str) -> bool:
    """Tell whether a layer tar carries this extended attribute, in both directions.

    Not those that steer overlayfs, since an image could then hide or redirect files of the
    layers below it; not the SELinux label, which the mount gives; not the EVM signature, which
    is bound to the inode; not an ACL in the form in which XFS shows it a second time, host IDs and all.
    """
    return (
        name.startswith(_CARRIED_PREFIXES)
        and not name.startswith(OVERLAY_XATTR_PREFIXES)
        and name not in _MACHINE_BOUND
    )
