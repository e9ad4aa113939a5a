"""Making the files that a tar describes, each as the last name in a directory that is held open."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from hostspec.archive.attributes import Attributes
from hostspec.archive.directories import Directories, Directory, components
from hostspec.archive.headers import Kind
from hostspec.archive.layers_below import LayersBelow
from hostspec.archive.member import Member
from hostspec.archive.removal import remove
from hostspec.archive.sparse import SparseMap
from hostspec.archive.whiteouts import is_whiteout_device
from hostspec.errors import InvalidArchive

__all__ = ["Made", "Maker"]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Nobody else may open what has not got its owner yet.
_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700
_SHORTEST_HOLE = 16 << 10  # bytes
_NODES = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}

Read = Callable[[int], memoryview]
"""Gives a piece of what is stored for the current member, of at most so many bytes."""


class Made(NamedTuple):
    """A directory, open."""

    fd: int
    """Its descriptor, for the caller to close."""
    took_place: bool
    """Something that was no directory stood there before."""


class Maker:
    """Makes files, in place of whatever had their name before."""

    def __init__(
        self,
        directories: Directories,
        attributes: Attributes,
        layers_below: LayersBelow,
        read: Read,
        *,
        null_devices_are_whiteouts: bool,
    ) -> None:
        """Make files with ``attributes``.

        Args:
            directories: Is told when something was removed through which names may lead.
            attributes: Says how they look.
            layers_below: Have the targets of hard links that are not in the tree.
            read: Gives their content.
            null_devices_are_whiteouts: The tree is read by overlayfs.
        """
        self._directories = directories
        self._attributes = attributes
        self._layers_below = layers_below
        self._read = read
        self._null_devices_are_whiteouts = null_devices_are_whiteouts
        self.size = 0
        """Bytes of content so far."""

    def make(self, directory: Directory, name: bytes, member: Member) -> None:
        """Make anything but a directory.

        Raises:
            InvalidArchive: The member asks for what cannot be.
            OSError: The operating system refused.
        """
        kind = member.kind
        if kind == Kind.FILE:
            self._file(directory, name, member)
        elif kind == Kind.SYMLINK:
            self._symlink(directory, name, member)
        elif kind == Kind.HARD_LINK:
            self._hard_link(directory, name, member)
        elif self._attributes.force_mode is not None:
            # The real type goes into an extended attribute, which only files and directories can have.
            self._file(directory, name, member)
        else:
            self._node(directory, name, member)

    def directory(self, above: Directory, name: bytes, member: Member) -> Made:
        """Make a directory, or give one that is there already the attributes of the member.

        Raises:
            OSError: The operating system refused.
        """
        made = took_place = False
        try:
            os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=above.fd)
            made = True
        except FileExistsError:
            status = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self.remove(above, name)
                os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=above.fd)
                made = took_place = True
        fd = os.open(name, _DIRECTORY, dir_fd=above.fd)
        try:
            self._attributes.to_open(fd, member, is_fresh=made, inherits=above.inherits)
        except BaseException:
            os.close(fd)
            raise
        return Made(fd, took_place)

    def unmentioned(self, above: Directory, name: bytes) -> Made:
        """Make a directory that the tar does not mention but needs; its attributes are for the caller to set.

        Args:
            above: Where.
            name: Its name. A whiteout that has it gives way.

        Raises:
            InvalidArchive: Something else has its name.
            OSError: The operating system refused.
        """
        took_place = False
        try:
            os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=above.fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise InvalidArchive("a link on the way to it leads nowhere") from None
            if not self._is_whiteout(status):
                raise InvalidArchive("something on the way to it is no directory") from None
            os.unlink(name, dir_fd=above.fd)
            os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=above.fd)
            took_place = True
        return Made(os.open(name, _DIRECTORY, dir_fd=above.fd), took_place)

    def remove(self, directory: Directory, name: bytes) -> None:
        """Remove what is under a name, and mistrust the names that may have led through it.

        Raises:
            OSError: The operating system refused.
        """
        if remove(directory.fd, name) in (stat.S_IFDIR, stat.S_IFLNK):
            self._directories.forget()

    def _file(self, directory: Directory, name: bytes, member: Member) -> None:
        try:
            fd = os.open(name, _NEW_FILE, _PRIVATE_FILE, dir_fd=directory.fd)
        except FileExistsError:
            self.remove(directory, name)
            fd = os.open(name, _NEW_FILE, _PRIVATE_FILE, dir_fd=directory.fd)
        try:
            if member.sparse is None:
                self._write(fd, member.stored)
            else:
                self._write_sparse(fd, member.sparse)
            self._attributes.to_open(fd, member, is_fresh=True, inherits=directory.inherits)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)
        self.size += member.size

    def _write(self, fd: int, left: int) -> None:
        """Write content; long runs of zeros become holes, since a tar need not say where a file has some."""
        is_hole = False
        while left:
            piece = self._read(left)
            left -= len(piece)
            is_hole = _is_zeros(piece)
            if is_hole:
                os.lseek(fd, len(piece), os.SEEK_CUR)
                continue
            while (written := os.write(fd, piece)) < len(piece):
                piece = piece[written:]
        if is_hole:
            os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))

    def _write_sparse(self, fd: int, sparse: SparseMap) -> None:
        for offset, size in sparse.segments:
            os.lseek(fd, offset, os.SEEK_SET)
            self._write(fd, size)
        os.ftruncate(fd, sparse.size)

    def _symlink(self, directory: Directory, name: bytes, member: Member) -> None:
        if not member.link:
            raise InvalidArchive("a symbolic link has no target")
        try:
            os.symlink(member.link, name, dir_fd=directory.fd)
        except FileExistsError:
            self.remove(directory, name)
            os.symlink(member.link, name, dir_fd=directory.fd)
        self._attributes.to_name(directory.fd, name, member, inherits=directory.inherits)

    def _node(self, directory: Directory, name: bytes, member: Member) -> None:
        """Make a device or a fifo. In a user namespace devices are left out, since there are none."""
        form = _NODES[member.kind]
        try:
            device = os.makedev(member.major, member.minor)
        except (OverflowError, ValueError):
            raise InvalidArchive("its device number is out of range") from None
        self.remove(directory, name)
        try:
            os.mknod(name, form | _PRIVATE_FILE, device, dir_fd=directory.fd)
        except PermissionError:
            # An overlay refuses 0:0, its own whiteout; there too nothing is visible under the name now.
            is_whiteout = form == stat.S_IFCHR and not device
            if form == stat.S_IFIFO or not (is_whiteout or _is_in_user_namespace()):
                raise
        else:
            self._attributes.to_name(directory.fd, name, member, inherits=directory.inherits)

    def _hard_link(self, directory: Directory, name: bytes, member: Member) -> None:
        names = components(member.link)
        if not names:
            raise InvalidArchive("a hard link leads to the root")
        # Looking for the other directory may close this one.
        here = Directory(os.dup(directory.fd))
        try:
            other = self._directories.find(b"/".join(names[:-1]), make=False)
            if other is not None and self._link(other, names[-1], here, name):
                return
            with self._layers_below.find(names) as found:
                if found is None:
                    raise InvalidArchive(f"a hard link leads to {member.link!r}, which is not there")
                self.remove(here, name)
                found.copy_to(here.fd, name)
        finally:
            os.close(here.fd)

    def _link(self, other: Directory, target: bytes, directory: Directory, name: bytes) -> bool:
        """Make a hard link; tell whether there is something that it could lead to."""
        try:
            status = os.stat(target, dir_fd=other.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if self._is_whiteout(status):
            return False
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArchive("a hard link leads to a directory")
        try:
            os.link(target, name, src_dir_fd=other.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
        except FileExistsError:
            present = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            if os.path.samestat(present, status):
                return True
            # Together with the directory that has this name the target may go.
            self.remove(directory, name)
            try:
                os.link(target, name, src_dir_fd=other.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def _is_whiteout(self, status: os.stat_result) -> bool:
        return self._null_devices_are_whiteouts and is_whiteout_device(status)


def _is_in_user_namespace() -> bool:
    """Tell whether IDs of this process are mapped, so that it may make no devices."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


def _is_zeros(piece: memoryview) -> bool:
    """Tell whether it is worth a hole: several blocks of the file system, and nothing but zeros."""
    # Most content differs at one of its ends, which costs nothing to see.
    return len(piece) >= _SHORTEST_HOLE and not piece[0] and not piece[-1] and not bytes(piece).strip(b"\0")
