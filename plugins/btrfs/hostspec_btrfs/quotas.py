"""Size limits of layers, where the administrator has switched quotas on.

Quotas cost every user of the file system time, and whoever switches them off loses all limits,
so they are never switched on or off here. Quota groups are made and kept by the kernel,
one for each subvolume; all that the driver does is to set the limit of a new layer's.
"""

from __future__ import annotations

import errno
import struct

from hostspec_btrfs import ioctls

__all__ = ["are_on", "limit_of", "set_limit"]

_QUOTA_TREE = 8
_STATUS_KEY = 240
_LIMIT_KEY = 244
_LIMIT = struct.Struct("<QQ")  # flags, bytes referred to
_LIMITS_REFERENCED = 1 << 0


def are_on(fd: int) -> bool:
    """Tell whether quotas are on; not for whom may not know (without CAP_SYS_ADMIN).

    Args:
        fd: Any directory on the file system.

    Raises:
        OSError: The kernel refused, for another reason than that.
    """
    try:
        return bool(ioctls.search_tree(fd, _QUOTA_TREE, kind=_STATUS_KEY))
    except OSError as error:
        # Where quotas are off there is no quota tree.
        if error.errno in {errno.ENOENT, errno.EPERM}:
            return False
        raise


def set_limit(fd: int, size: int | None) -> None:
    """Limit the subvolume that ``fd`` is in to ``size`` bytes, counting what it shares with others.

    A snapshot starts with its source's limit, so that of a layer without one has to be lifted.

    Args:
        fd: Any directory in the subvolume.
        size: In bytes, or ``None`` for no limit.

    Raises:
        OSError: Quotas are off, or CAP_SYS_ADMIN is missing.
    """
    if size is not None or limit_of(fd) is not None:
        ioctls.limit_referenced(fd, size)


def limit_of(fd: int) -> int | None:
    """Return the limit of the subvolume that ``fd`` is in, in bytes, or ``None``.

    Raises:
        OSError: The kernel refused.
    """
    if not are_on(fd):
        return None
    for item in ioctls.search_tree(fd, _QUOTA_TREE, kind=_LIMIT_KEY, offset=ioctls.subvolume_id(fd)):
        flags, size = _LIMIT.unpack_from(item.data)
        if flags & _LIMITS_REFERENCED:
            return int(size)
    return None
