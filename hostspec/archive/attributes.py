"""Giving unpacked files their owner, mode, extended attributes and times.

Always in this order: the owner, since changing it clears set-ID bits and capabilities; the mode; the
extended attributes, since an ACL decides about the mode's group bits; the times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from hostspec.archive.log import log
from hostspec.archive.member import Member
from hostspec.archive.whiteouts import OVERRIDE_XATTR, is_carried_xattr
from hostspec.errors import InvalidArchive
from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.modes import change_mode

__all__ = ["Attributes", "override_value"]

_MAX_OWNERS_KEPT = 4096
_NO_XATTRS: tuple[tuple[str, bytes], ...] = ()
_TOO_LARGE = frozenset({errno.ERANGE, errno.E2BIG})
_SHOWN = 255  # characters of a name
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES})


class Attributes:
    """Applies what members say about their files, under an ID map."""

    def __init__(self, idmap: IdMap, *, squash: bool = False, force_mode: int | None = None) -> None:
        """Prepare to apply.

        Args:
            idmap: From the IDs in the tar to those on disk.
            squash: Take the nearest ID where the map has none, and leave the owner where it cannot be set.
            force_mode: Permission bits for all regular files and directories instead of their own, which
                go into an extended attribute with the owner, which is not set either; or ``None``.
        """
        self.force_mode = force_mode
        self._shift = IdShift(IdMap(), idmap, squash=squash)
        self._squash = squash
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}
        self._privileged = os.geteuid() == 0
        self._told: set[str] = set()

    def owner(self, member: Member) -> tuple[int, int]:
        """Return the owner on disk.

        Raises:
            InvalidArchive: An ID is not a 32-bit one.
            IdNotMapped: The map has none for it.
        """
        pair = (member.uid, member.gid)
        found = self._owners.get(pair)
        if found is None:
            if not (0 <= member.uid < ID_LIMIT and 0 <= member.gid < ID_LIMIT):
                raise InvalidArchive(f"its owner {member.uid}:{member.gid} is no 32-bit ID")
            found = self._shift.owner(*pair, member.text)
            if len(self._owners) >= _MAX_OWNERS_KEPT:
                self._owners.clear()
            self._owners[pair] = found
        return found

    def root_owner(self) -> tuple[int, int]:
        """Return the owner on disk of what the tar does not mention: the container's root."""
        return self._shift.owner(0, 0)

    def to_open(self, fd: int, member: Member, *, is_fresh: bool, inherits: bool) -> None:
        """Apply all but the times to an open regular file or directory.

        Args:
            fd: Its descriptor.
            member: What the tar says of it.
            is_fresh: It has just been made, so that it has no extended attributes but inherited ones.
            inherits: It was made in a directory that gives its ACL to what is made in it.

        Raises:
            OSError: The operating system refused.
        """
        owner = self.owner(member)
        if self.force_mode is not None:
            os.fchmod(fd, self.force_mode)
            value = override_value(owner, member.mode, member.kind, member.major, member.minor)
            self._set(fd, "", [*self._wanted(member), (OVERRIDE_XATTR, value)])
            return
        if inherits or not is_fresh:
            self._strip(fd, member)
        self._chown(fd, owner)
        os.fchmod(fd, member.mode)
        if member.xattrs:
            self._set(fd, "", self._wanted(member))

    def to_name(self, directory_fd: int, name: bytes, member: Member, *, inherits: bool) -> None:
        """Apply everything to a fresh symbolic link, device or fifo, which must not be opened.

        Args:
            directory_fd: Descriptor of the directory in which it is.
            name: Its name there.
            member: What the tar says of it.
            inherits: The directory gives its ACL to what is made in it.

        Raises:
            OSError: The operating system refused.
        """
        owner = self.owner(member)
        if inherits and member.kind != b"2":
            self._strip(f"/proc/self/fd/{directory_fd}/{os.fsdecode(name)}", member)
        if self.force_mode is None:
            try:
                os.chown(name, *owner, dir_fd=directory_fd, follow_symlinks=False)
            except OSError as error:
                self._forgive_chown(error)
            if member.kind != b"2":
                change_mode(name, member.mode, dir_fd=directory_fd)
        if member.xattrs:
            self._set(directory_fd, os.fsdecode(name), self._wanted(member))
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)

    def to_unmentioned(self, fd: int, *, inherits: bool) -> None:
        """Apply to a fresh directory what one gets that the tar does not mention: 0755, container's root.

        Raises:
            OSError: The operating system refused.
        """
        member = Member()
        member.name, member.kind, member.xattrs = b"", b"5", None
        member.uid = member.gid = member.major = member.minor = 0
        member.mode = 0o755
        self.to_open(fd, member, is_fresh=True, inherits=inherits)

    def to_whiteout(self, directory_fd: int, name: bytes) -> None:
        """Give a whiteout to the container's root, as if overlayfs had made it in the container.

        Raises:
            OSError: The operating system refused.
        """
        if self.force_mode is not None:
            return
        try:
            os.chown(name, *self.root_owner(), dir_fd=directory_fd, follow_symlinks=False)
        except OSError as error:
            self._forgive_chown(error)

    def _wanted(self, member: Member) -> Iterable[tuple[str, bytes]]:
        """Return the extended attributes to set, IDs in them mapped."""
        if not member.xattrs:
            return _NO_XATTRS
        wanted = []
        for raw, value in sorted(member.xattrs.items()):
            name = os.fsdecode(raw)
            if "\0" in name:
                raise InvalidArchive("the name of an extended attribute holds a NUL")
            if is_carried_xattr(name):
                wanted.append((name, self._shift.xattr(name, value, member.text)))
        return wanted

    def _chown(self, fd: int, owner: tuple[int, int]) -> None:
        try:
            os.fchown(fd, *owner)
        except OSError as error:
            self._forgive_chown(error)

    def _forgive_chown(self, error: OSError) -> None:
        if not (self._squash and error.errno in (errno.EPERM, errno.EINVAL)):
            raise error

    def _strip(self, file: int | str, member: Member) -> None:
        """Remove the extended attributes that a directory had before, or a new file has inherited."""
        has = member.xattrs or {}
        for name in os.listxattr(file):
            if is_carried_xattr(name) and os.fsencode(name) not in has:
                os.removexattr(file, name)

    def _set(self, fd: int, name: str, xattrs: Iterable[tuple[str, bytes]]) -> None:
        """Set extended attributes of ``fd`` itself, or of a name in that directory.

        What the file system cannot hold is left out and told once, as the Go library does;
        a privileged caller is only excused where there is no support.
        """
        target: int | str = f"/proc/self/fd/{fd}/{name}" if name else fd
        for key, value in xattrs:
            try:
                if name:
                    os.setxattr(target, key, value, follow_symlinks=False)
                else:
                    os.setxattr(target, key, value)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise InvalidArchive(f"its extended attribute {key} has no valid value") from None
                if name and self._privileged and error.errno == errno.EPERM and key.startswith("user."):
                    # xattr(7), "Extended user attributes"; the Go library refuses it too.
                    reason = f"only files and directories can have its extended attribute {key[:_SHOWN]}"
                    raise InvalidArchive(reason) from None
                allowed = (errno.ENOTSUP,) if self._privileged else _UNSUPPORTED
                if error.errno in _TOO_LARGE:
                    raise InvalidArchive(
                        f"its extended attribute {key[:_SHOWN]} is too long: {error.strerror}"
                    ) from None
                if error.errno not in allowed:
                    raise OSError(error.errno, error.strerror, f"extended attribute {key}") from None
                if key not in self._told:
                    self._told.add(key)
                    log.warning("extended attribute %s cannot be kept here: %s", key, error.strerror)


_OVERRIDE_KINDS = {b"0": "file", b"5": "dir", b"6": "pipe", b"3": "char", b"4": "block"}


def override_value(owner: tuple[int, int], mode: int, kind: bytes, major: int, minor: int) -> bytes:
    """Return what ``user.containers.override_stat`` says: ``uid:gid:0mode:type``."""
    name = _OVERRIDE_KINDS[kind]
    device = f"-{major}-{minor}" if name in ("char", "block") else ""
    return f"{owner[0]}:{owner[1]}:0{stat.S_IMODE(mode):o}:{name}{device}".encode()
