"""What this thread may do, as the kernel sees it (capabilities(7))."""

from __future__ import annotations

__all__ = ["can_mount"]

_CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h


def can_mount() -> bool:
    """Tell whether this thread may mount: whether CAP_SYS_ADMIN is effective."""
    with open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False
