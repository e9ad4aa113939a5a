"""User namespaces that hold an ID map, for idmapped mounts (user_namespaces(7)).

Such a namespace has no process: a child is born into it, has already exited when its maps
are written through ``/proc/PID``, and is reaped at once. What stays is the descriptor.

:func:`run_in_user_namespace` is for ordinary users, who may mount and change owners only inside.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable

from hostspec.idmap import ID_LIMIT, IdMap, IdRange, IdRanges
from hostspec.kernel.syscalls import check, exit_in_new_namespaces, libc

__all__ = ["MAX_MAP_BYTES", "MAX_RANGES", "run_in_user_namespace", "user_namespace"]

MAX_RANGES = 340
"""Ranges that the kernel takes for each half of a map (since Linux 4.15)."""

MAX_MAP_BYTES = os.sysconf("SC_PAGE_SIZE") - 1
"""Bytes that the kernel takes for each half of a map, written ``CONTAINER HOST SIZE``."""

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_WAIT_FOR_ANY_CHILD = 0x40000000  # __WALL: also one that was made without an exit signal

_ONLY_ROOT = "only the machine's root may set up ID maps for mounts, not an ordinary user in a namespace"

_IDENTITY = IdRange(0, 0, ID_LIMIT)

_namespaces: dict[IdMap, tuple[int, int]] = {}
"""Descriptor and inode of the namespaces that this process has made."""

_lock = threading.Lock()


def _forget_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it when this process was forked
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)


def user_namespace(idmap: IdMap) -> int:
    """Return a descriptor of a user namespace with this map.

    Made once for each map, and kept for the life of the process and of its forks: the caller must
    not close it. A half of the map that is empty maps every ID to itself.

    Needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID, and CAP_SETFCAP where host ID 0 is mapped.

    Raises:
        OSError: EPERM or, for an ordinary user and in their namespaces, EACCES without these capabilities;
            ENOSPC where user namespaces are switched off (``user.max_user_namespaces``) or too many;
            E2BIG for more ranges than the kernel takes.
    """
    with _lock:
        known = _namespaces.get(idmap)
        if known is not None and _inode(known[0]) == known[1]:
            return known[0]
        descriptor = _make(idmap)
        _namespaces[idmap] = descriptor, os.fstat(descriptor).st_ino
        return descriptor


def _inode(descriptor: int) -> int | None:
    """Return the inode behind a descriptor, which code that closes all descriptors may have taken away."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


def _make(idmap: IdMap) -> int:
    uid_map = _written(idmap.uids, "UID")
    gid_map = _written(idmap.gids, "GID")
    import signal  # noqa: PLC0415 - it makes three enumerations, for who has a map to hold

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = exit_in_new_namespaces(_CLONE_NEWUSER)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        try:
            _write(f"/proc/{child}/uid_map", uid_map)
            _write(f"/proc/{child}/gid_map", gid_map)
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise
            # The files of a process that has exited are the machine's root's (proc_pid(5), dumpable).
            raise PermissionError(errno.EACCES, _ONLY_ROOT) from error
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.waitpid(child, _WAIT_FOR_ANY_CHILD)


def _written(ranges: IdRanges, kind: str) -> bytes:
    """Return ranges as the kernel reads them."""
    written = "".join(f"{each[0]} {each[1]} {each[2]}\n" for each in ranges or (_IDENTITY,)).encode("ascii")
    if len(ranges) > MAX_RANGES or len(written) > MAX_MAP_BYTES:
        message = (
            f"{kind} map has {len(ranges)} ranges in {len(written)} bytes, "
            f"and the kernel takes {MAX_RANGES} ranges in {MAX_MAP_BYTES} bytes"
        )
        raise OSError(errno.E2BIG, message)
    return written


def _write(path: str, content: bytes) -> None:
    """Write a map, which the kernel takes in a single write only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def run_in_user_namespace(idmap: IdMap, function: Callable[[], int]) -> int:
    """Run a function in a child process in user and mount namespaces of its own.

    Inside, the child is root: it has every capability over what belongs to the namespace, and the
    IDs of ``idmap``. The caller must have no other threads.

    Args:
        idmap: From the IDs inside to those of the caller's namespace. A map of more than the caller's own
            ID is written by ``newuidmap`` and ``newgidmap``, as ``/etc/subuid`` and ``/etc/subgid`` allow.
        function: Returns the child's exit status; what it raises is printed, and the status is 1.

    Returns:
        The exit status; for a child that a signal ended 256 less the signal's number.

    Raises:
        OSError: There are to be no user namespaces here (EPERM, ENOSPC), or the map was refused.
    """
    entered, tell_entered = os.pipe()
    mapped, tell_mapped = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(entered)
        os.close(tell_mapped)
        _run_inside(tell_entered, mapped, function)
    os.close(tell_entered)
    os.close(mapped)
    try:
        number = int(os.read(entered, 16) or errno.ECHILD)
        if number:
            raise OSError(number, f"no user namespace: {os.strerror(number)}")
        _map_process(child, idmap)
        os.write(tell_mapped, b"go")
    finally:
        os.close(entered)
        os.close(tell_mapped)  # a child that has not been told to go ends now
        status = _wait(child)
    return status


def _run_inside(tell_entered: int, mapped: int, function: Callable[[], int]) -> None:
    """Be the child of :func:`run_in_user_namespace`; does not return."""
    status = 1
    try:
        try:
            check(libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        except OSError as error:
            os.write(tell_entered, b"%d" % (error.errno or errno.EPERM))
            return
        os.write(tell_entered, b"0")
        if os.read(mapped, 2):
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            status = function()
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in this process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _map_process(child: int, idmap: IdMap) -> None:
    own = os.geteuid(), os.getegid()
    for kind, ranges, identifier in (("uid", idmap.uids, own[0]), ("gid", idmap.gids, own[1])):
        if [(each.host_id, each.size) for each in ranges] == [(identifier, 1)]:
            if kind == "gid":
                # Otherwise the child could drop groups that keep it from files (user_namespaces(7)).
                _write(f"/proc/{child}/setgroups", b"deny")
            _write(f"/proc/{child}/{kind}_map", _written(ranges, kind.upper()))
            continue
        if own == (0, 0):
            # Root may write any map, and newuidmap would ask for grants that root does not have.
            _write(f"/proc/{child}/{kind}_map", _written(ranges, kind.upper()))
            continue
        import subprocess  # noqa: PLC0415 - costs start-up time, and root needs no other program

        words = [str(number) for each in ranges for number in each]
        done = subprocess.run(  # the program has the privilege that the caller lacks
            [f"new{kind}map", str(child), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(errno.EPERM, done.stderr.strip() or f"new{kind}map refused the map {ranges}")


def _wait(child: int) -> int:
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256
        except KeyboardInterrupt:
            continue  # the child was interrupted too, and is clearing up
