"""Open files inside a directory that must not be left, whatever the path and the links in it say.

The kernel does it with openat2(2) and ``RESOLVE_IN_ROOT`` (Linux 5.6): absolute paths and
links start at the root, ``..`` stops there, as after chroot(2). On older kernels, or where
a sandbox forbids the call, the same walk is made here, component by component:
no component is ever followed by the kernel, so nothing that others rename or
replace meanwhile leads outside. Set ``HOSTSPEC_NO_OPENAT2=1`` to make it the only way.

No capability is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from functools import cache

from hostspec.kernel.syscalls import AT_FDCWD, OPENAT2, syscall

__all__ = ["has_openat2", "open_in_root", "open_in_root_by_walking", "open_parent"]

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RESOLVE = _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT

_OPEN_HOW = struct.Struct("=QQQ")
_MAX_LINKS = 40
_MAX_PATH_BYTES = 4096
_MAX_RACES = 64

_DIRECTORY_WANTED = ""
"""Component for a slash at the end of a path: what is before it must be a directory, and cannot be made."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# O_TMPFILE contains O_DIRECTORY, and openat2 takes a mode with these flags only.
_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY


@cache
def has_openat2() -> bool:
    """Tell whether openat2(2) can be used: known, not forbidden by a sandbox, not switched off."""
    if os.environ.get("HOSTSPEC_NO_OPENAT2", "") not in ("", "0"):
        return False
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE)
    try:
        os.close(syscall(OPENAT2, AT_FDCWD, b"/\0", how, len(how)))
    except OSError:
        return False
    return True


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a file as if ``root_fd`` were the root directory.

    Args:
        root_fd: A directory.
        path: Absolute or relative, which is the same.
        flags: As for :func:`os.open`; always close-on-exec.
        mode: Permission bits of a file that is made, before the umask.

    Returns:
        A descriptor.

    Raises:
        OSError: As open(2) does; ELOOP also for links of ``/proc`` that are no paths.
    """
    if not has_openat2():
        return open_in_root_by_walking(root_fd, path, flags, mode)
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode if flags & (os.O_CREAT | _TMPFILE) else 0, _RESOLVE)
    encoded = os.fsencode(path) + b"\0"
    if b"\0" in encoded[:-1]:
        raise ValueError("embedded null byte")
    for _ in range(_MAX_RACES):
        try:
            return syscall(OPENAT2, root_fd, encoded, how, len(how), path=path)
        except (BlockingIOError, InterruptedError):
            # Something was renamed or mounted while the kernel resolved "..", or a signal came.
            continue
    return open_in_root_by_walking(root_fd, path, flags, mode)


def open_parent(root_fd: int, path: str, *, create_mode: int | None = None) -> tuple[int, str]:
    """Open the directory of a path, for work on its last component.

    Args:
        root_fd: As for :func:`open_in_root`.
        path: Slashes at its end do not count. The last component is not looked at.
        create_mode: Make directories that are missing on the way, with these permission bits; or ``None``.

    Returns:
        A descriptor (opened with O_PATH) of the directory, and the last component; ``"."`` for the root.

    Raises:
        OSError: As open(2) and mkdir(2) do; ENOENT when ``..`` follows a directory that is missing,
            EINVAL when the last component is ``..``.
    """
    directory, _, name = path.rstrip("/").rpartition("/")
    name = name or "."
    if name == "..":
        raise OSError(errno.EINVAL, "the path ends with '..'", path)
    if create_mode is None:
        return open_in_root(root_fd, directory or ".", os.O_PATH | os.O_DIRECTORY), name
    return _open_or_make(root_fd, directory or ".", create_mode), name


def _open_or_make(root_fd: int, directory: str, mode: int) -> int:
    """Open a directory, after making those on the way to it that are missing."""
    missing: list[str] = []
    descriptor: int | None = None
    while descriptor is None:
        try:
            descriptor = open_in_root(root_fd, directory, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            above, _, name = directory.rstrip("/").rpartition("/")
            # Plain steps make what is missing, and they know no root: ".." could leave it.
            if name in ("", ".."):
                raise
            missing.append(name)
            directory = above or "."
    for name in reversed(missing):
        descriptor = _enter_or_make(descriptor, name, mode)
    return descriptor


def _enter_or_make(directory_fd: int, name: str, mode: int) -> int:
    """Make a directory if it is missing, open it and close the one above."""
    try:
        # It may have been made meanwhile; a link that leads nowhere is refused by the next step.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=directory_fd)
        return os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=directory_fd)
    finally:
        os.close(directory_fd)


def open_in_root_by_walking(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Do what :func:`open_in_root` does without openat2; links of ``/proc`` are taken as paths."""
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if len(os.fsencode(path)) >= _MAX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    walk = _Walk(root_fd, path)
    try:
        return walk.open(flags | os.O_CLOEXEC, mode)
    except OSError as error:
        error.filename = path
        raise
    finally:
        walk.close()


class _Walk:
    """A path on its way: the directories entered, and the components still ahead."""

    def __init__(self, root_fd: int, path: str) -> None:
        self._entered = [os.dup(root_fd)]
        self._ahead: list[str] = []
        self._links = 0
        self._push(path)

    def close(self) -> None:
        while self._entered:
            os.close(self._entered.pop())

    def open(self, flags: int, mode: int) -> int:
        """Walk to the last component and open it."""
        races = 0
        while self._ahead:
            name = self._ahead.pop()
            if name == "..":
                self._leave()
            elif name in (".", _DIRECTORY_WANTED):
                continue
            elif self._ahead:
                if flags & os.O_CREAT and set(self._ahead) == {_DIRECTORY_WANTED}:
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
                self._enter(name)
            else:
                try:
                    opened = self._open_last(name, flags, mode)
                except _ReplacedError:
                    races += 1
                    if races > _MAX_RACES:
                        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
                    self._ahead.append(name)
                    continue
                if opened is not None:
                    return opened
        return os.open(".", flags, mode, dir_fd=self._entered[-1])

    def _push(self, path: str) -> None:
        """Put the components of a path before those that are ahead."""
        if path.startswith("/"):
            while len(self._entered) > 1:
                self._leave()
        components = [name for name in path.split("/") if name]
        if path.endswith("/"):
            components.append(_DIRECTORY_WANTED)
        self._ahead += reversed(components)

    def _leave(self) -> None:
        if len(self._entered) > 1:
            os.close(self._entered.pop())

    def _enter(self, name: str) -> None:
        """Enter a directory, or go on along a link."""
        found = os.open(name, _LOOK, dir_fd=self._entered[-1])
        kind = stat.S_IFMT(os.fstat(found).st_mode)
        if kind == stat.S_IFDIR:
            self._entered.append(found)
            return
        try:
            if kind != stat.S_IFLNK:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._follow(found)
        finally:
            os.close(found)

    def _open_last(self, name: str, flags: int, mode: int) -> int | None:
        """Open the last component; or answer ``None`` when it is a link that has been put ahead."""
        here = self._entered[-1]
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        if flags & os.O_NOFOLLOW or exclusive:
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=here)
        try:
            found = os.open(name, _LOOK, dir_fd=here)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        else:
            try:
                if stat.S_ISLNK(os.fstat(found).st_mode):
                    self._follow(found)
                    return None
            finally:
                os.close(found)
        try:
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=here)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _ReplacedError from error
            raise

    def _follow(self, link: int) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._push(os.readlink("", dir_fd=link))


class _ReplacedError(Exception):
    """What was no link became one between two looks."""
