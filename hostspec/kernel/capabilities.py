"""What this thread may do, as the kernel sees it (capabilities(7))."""

from __future__ import annotations

__all__ = ["can_mount", "in_user_namespace"]

_ALL_IDS = [b"0", b"0", b"4294967295"]
_CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h


def can_mount() -> bool:
    """Tell whether this thread may mount: whether CAP_SYS_ADMIN is effective."""
    with open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def in_user_namespace() -> bool:
    """Tell whether this process is in a user namespace other than the machine's first.

    There a capability holds for what the namespace owns. File systems that read a device or an image are not
    mounted for it, and nobody makes devices.
    """
    with open("/proc/self/uid_map", "rb") as uids:
        return uids.read().split() != _ALL_IDS
