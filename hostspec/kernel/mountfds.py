"""Mounting by file descriptors: fsopen(2) and its kin, open_tree(2), move_mount(2), mount_setattr(2).

Since Linux 5.2, mount_setattr since 5.12. A mount made this way is *detached*: it is
seen nowhere, and gone when its descriptor is closed, until :func:`move_mount` puts it somewhere.
All calls need CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
"""

from __future__ import annotations

import errno
import os
import struct

from hostspec.kernel.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    FSCONFIG,
    FSMOUNT,
    FSOPEN,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    OPEN_TREE,
    syscall,
)

__all__ = [
    "MOUNT_ATTR_IDMAP",
    "MOUNT_ATTR_NOATIME",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "fsconfig_create",
    "fsconfig_fd",
    "fsconfig_flag",
    "fsconfig_string",
    "fscontext_log",
    "fsmount",
    "fsopen",
    "move_mount",
    "open_tree",
    "set_attributes",
]

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x100000

_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40

_SET_FLAG = 0
_SET_STRING = 1
_SET_FD = 5
_CMD_CREATE = 6

_LOG_MESSAGE_BYTES = 1024
_MOUNT_ATTR = struct.Struct("=QQQQ")


def fsopen(fstype: str) -> int:
    """Begin to configure a new mount of a file system type; return the *context*, a descriptor.

    Raises:
        OSError: ENODEV when the kernel has no such file system.
    """
    return syscall(FSOPEN, os.fsencode(fstype) + b"\0", _FSOPEN_CLOEXEC, path=fstype)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set an option to a text (at most 255 bytes). Raises OSError with the kernel's explanation."""
    _fsconfig(context, _SET_STRING, key, os.fsencode(value) + b"\0", 0, path=value)


def fsconfig_flag(context: int, key: str) -> None:
    """Set an option that has no value. Raises OSError with the kernel's explanation."""
    _fsconfig(context, _SET_FLAG, key, None, 0)


def fsconfig_fd(context: int, key: str, value: int) -> None:
    """Set an option to a file that is open. Raises OSError with the kernel's explanation."""
    _fsconfig(context, _SET_FD, key, None, value)


def fsconfig_create(context: int) -> None:
    """Make the file system as configured. Raises OSError with the kernel's explanation."""
    _fsconfig(context, _CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """Return a detached mount of the file system that a context has made.

    Args:
        context: From :func:`fsopen`, after :func:`fsconfig_create`.
        attributes: ``MOUNT_ATTR_*``, OR-ed.

    Raises:
        OSError: The kernel refused; with its explanation.
    """
    try:
        return syscall(FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        raise _explained(error, context, "fsmount") from None


def fscontext_log(context: int) -> str:
    """Take what the kernel has written about a context since the last time; ``""`` if nothing.

    Each message goes on a line of its own, without the letter for its severity.
    """
    messages = []
    while True:
        try:
            message = os.read(context, _LOG_MESSAGE_BYTES)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                continue
            break
        if not message:
            break
        # A message begins with "e ", "w " or "i ", for its severity.
        messages.append(os.fsdecode(message).rstrip("\n")[2:])
    return "\n".join(messages)


def move_mount(mount: int, target: str | int) -> None:
    """Put a mount into the tree of files.

    Args:
        mount: From :func:`fsmount` or :func:`open_tree`.
        target: The mount point, a symbolic link not followed; or a descriptor of it.
    """
    if isinstance(target, int):
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        syscall(MOVE_MOUNT, mount, b"\0", target, b"\0", flags)
    else:
        place = os.fsencode(target) + b"\0"
        syscall(MOVE_MOUNT, mount, b"\0", AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH, path=target)


def open_tree(path: str, *, clone: bool, recursive: bool = False, dirfd: int = AT_FDCWD) -> int:
    """Open a file or directory as a mount.

    Args:
        path: Relative to ``dirfd``, a symbolic link at its end not followed; ``""`` for ``dirfd`` itself.
        clone: Return a new, detached mount whose root is ``path``; else ``path`` as O_PATH opens it.
        recursive: Clone the mounts below it too.
        dirfd: A descriptor of a directory.
    """
    flags = os.O_CLOEXEC | AT_SYMLINK_NOFOLLOW
    if clone:
        flags |= _OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall(OPEN_TREE, dirfd, os.fsencode(path) + b"\0", flags, path=path or None)


def set_attributes(
    mount: int,
    *,
    read_only: bool | None = None,
    set_bits: int = 0,
    clear_bits: int = 0,
    userns_fd: int | None = None,
    recursive: bool = False,
) -> None:
    """Change the attributes of a mount.

    Args:
        mount: A descriptor of the mount's root.
        read_only: Refuse writes, allow them, or leave it as it is.
        set_bits: Further ``MOUNT_ATTR_*`` to set.
        clear_bits: ``MOUNT_ATTR_*`` to clear.
        userns_fd: Map IDs by this user namespace; only for a detached mount without a map.
        recursive: On the mounts below it too; all or, on an error, none.

    Raises:
        OSError: EINVAL where the file system cannot map IDs, ENOSYS before Linux 5.12.
    """
    if read_only is not None:
        set_bits |= MOUNT_ATTR_RDONLY if read_only else 0
        clear_bits |= 0 if read_only else MOUNT_ATTR_RDONLY
    if userns_fd is not None:
        set_bits |= MOUNT_ATTR_IDMAP
    attributes = _MOUNT_ATTR.pack(set_bits, clear_bits, 0, userns_fd or 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(MOUNT_SETATTR, mount, b"\0", flags, attributes, len(attributes))


def _fsconfig(
    context: int, command: int, key: str | None, value: bytes | None, aux: int, path: str | None = None
) -> None:
    encoded = None if key is None else os.fsencode(key) + b"\0"
    try:
        syscall(FSCONFIG, context, command, encoded, value, aux, path=path)
    except OSError as error:
        raise _explained(error, context, key or "create") from None


def _explained(error: OSError, context: int, step: str) -> OSError:
    """Return the error with the messages that the kernel left in the context's log."""
    log = fscontext_log(context).replace("\n", "; ")
    message = f"{step}: {error.strerror}" + (f" ({log})" if log else "")
    return OSError(error.errno, message, error.filename)
