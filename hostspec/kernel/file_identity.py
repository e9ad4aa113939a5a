"""Making files as somebody else, without giving up root's rights (setfsuid(2), capabilities(7)).

An idmapped mount refuses files of an owner outside its map (EOVERFLOW), and the host's root is outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.kernel.syscalls import check, libc

__all__ = ["making_files_as"]

_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2


@contextmanager
def making_files_as(uid: int, gid: int) -> Iterator[None]:
    """Let the files that this thread makes belong to host IDs ``uid`` and ``gid``.

    What root may do it still may. Other threads are not concerned.

    Needs CAP_SETPCAP, CAP_SETUID and CAP_SETGID, unless both are 0.

    Raises:
        OSError: EPERM without these capabilities.
    """
    if (uid, gid) == (0, 0):
        yield
        return
    system = libc()
    bits = check(system.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0))
    # Otherwise leaving ID 0 takes away the capabilities that concern files.
    check(system.prctl(_PR_SET_SECUREBITS, bits | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    try:
        former_gid = system.setfsgid(gid)
        former_uid = system.setfsuid(uid)
        try:
            yield
        finally:
            system.setfsuid(former_uid)
            system.setfsgid(former_gid)
    finally:
        check(system.prctl(_PR_SET_SECUREBITS, bits, 0, 0, 0))
