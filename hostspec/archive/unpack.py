"""Unpacking layer tars.

Nothing outside the root is ever touched: every name is resolved under the root by the kernel, and what
is made, removed or changed is the last name in a directory that is held open
(:mod:`hostspec.archive.directories`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from hostspec.archive.attributes import Attributes
from hostspec.archive.directories import Directories, Directory, components
from hostspec.archive.headers import Kind
from hostspec.archive.hiding import Hiding
from hostspec.archive.layers_below import LayersBelow
from hostspec.archive.log import log
from hostspec.archive.making import Maker
from hostspec.archive.member import Member
from hostspec.archive.reader import TarReader
from hostspec.archive.times import DirectoryTimes
from hostspec.archive.whiteouts import AUFS_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX, WhiteoutForm
from hostspec.errors import DriverFailed, InvalidArchive
from hostspec.idmap import IdMap
from hostspec.values import Progress, ProgressCallback

__all__ = ["unpack"]

_NOT_NAMES = frozenset({b"", b".", b".."})
_WHITEOUT = WHITEOUT_PREFIX.encode()
_AUFS = AUFS_PREFIX.encode()
_OPAQUE = OPAQUE_MARKER.encode()
_BETWEEN_REPORTS = 1 << 22

_FAULTS_OF_THE_ARCHIVE = {
    errno.ENAMETOOLONG: "a name is too long",
    errno.ELOOP: "there are too many links on the way to it",
    errno.ENOTDIR: "something on the way to it is no directory",
    errno.EFBIG: "it is larger than a file can be",
}


def unpack(
    stream: BinaryIO,
    root: str,
    *,
    idmap: IdMap,
    whiteouts: WhiteoutForm,
    squash: bool = False,
    force_mode: int | None = None,
    progress: ProgressCallback | None = None,
    lowers: Sequence[str] = (),
) -> int:
    """Unpack an uncompressed layer tar into a directory.

    Entries that are there already are replaced; directories are kept and get what the tar says of them.
    Directories that the tar does not mention are made when missing, owned by the container's root.
    Whiteouts hide what was there before, not what the tar itself has, in whatever order it comes.
    Names of aufs's book-keeping are passed over.

    In the overlay forms a 0:0 character device in the tar *is* a whiteout once it is on disk, and
    hides that name of the layers below, as with the Go library; in a plain tree it is made as it is.

    Args:
        stream: The tar. It is read to its end, trailing zeros included.
        root: An existing directory. Nothing outside it is touched, whatever the tar says.
        idmap: From the IDs in the tar to those on disk.
        whiteouts: What a deletion looks like on disk.
        squash: Take the nearest ID where the map has none, leave the owner where it cannot be set.
        force_mode: Permission bits for all files, see :class:`~hostspec.values.ApplyOptions`.
        progress: Told the bytes read, now and then.
        lowers: In the overlay forms, the layers below, topmost first, carrying IDs under the same
            map. Then directories that the tar does not mention look as they do there, and a hard link may
            lead to a file of theirs, of which the layer gets a copy. Without them such a directory is
            0755 and such a link an error.

    Returns:
        Bytes of file content.

    Raises:
        InvalidArchive: The tar is damaged or asks for what no layer may contain.
        IdNotMapped: An owner in the tar is outside the map.
        DriverFailed: The operating system refused.

    After a failure the directory has a part of the content.
    """
    attributes = Attributes(idmap, squash=squash, force_mode=force_mode)
    reader = TarReader(stream)
    with ExitStack() as held:
        try:
            below = held.enter_context(LayersBelow(root, lowers, whiteouts))
            unpacker = _Unpacker(held, reader, root, attributes, whiteouts, below)
        except OSError as error:
            raise DriverFailed(f"unpack into {root}", error) from error
        return unpacker.run(progress)


class _Unpacker:
    """One tar on its way into one directory."""

    def __init__(
        self,
        held: ExitStack,
        reader: TarReader,
        root: str,
        attributes: Attributes,
        form: WhiteoutForm,
        layers_below: LayersBelow,
    ) -> None:
        self._reader = reader
        self._attributes = attributes
        self._layers_below = layers_below
        self._directories = held.enter_context(Directories(root, self._make_unmentioned))
        self._times = held.enter_context(DirectoryTimes())
        self._maker = Maker(
            self._directories,
            attributes,
            layers_below,
            reader.piece,
            null_devices_are_whiteouts=form is not WhiteoutForm.PLAIN,
        )
        self._hiding = Hiding(form, self._directories, self._maker, attributes)

    def run(self, progress: ProgressCallback | None) -> int:
        """Unpack all members; return the bytes of content."""
        next_report = _BETWEEN_REPORTS
        member: Member | None = None
        try:
            for member in self._reader:
                self._place(member)
                if progress is not None and self._reader.consumed >= next_report:
                    next_report = self._reader.consumed + _BETWEEN_REPORTS
                    progress(Progress(self._reader.consumed, None, "bytes"))
            member = None
            self._times.apply(self._directories.root.fd)
        except InvalidArchive as error:
            if error.member is None and member is not None:
                raise InvalidArchive(error.reason, member.text) from error
            raise
        except OSError as error:
            raise _explained(error, member) from error
        if self._reader.consumed and not self._reader.has_end_marker:
            log.warning("the layer tar has no end marker; it may have been cut off between two files")
        return self._maker.size

    def _place(self, member: Member) -> None:
        """Find where a member belongs, and make it there."""
        name = member.name
        if name[-1:] == b"/":
            name = name.rstrip(b"/")
        parent, _, base = name.rpartition(b"/")
        if base in _NOT_NAMES or b"/.." in name or name[:2] == b"..":
            names = components(name)
            if not names:
                self._set_root(member)
                return
            base = names.pop()
            parent = b"/".join(names)
            name = parent + b"/" + base if parent else base
        directory = self._directories.find(parent)
        if directory is None:
            return
        if base[:4] == _WHITEOUT:
            self._hide(directory, base)
        elif self._is_whiteout(member):
            self._hiding.name(directory, base)
        else:
            self._make(directory, base, member, name)
            self._hiding.placed.add(directory.inode, base)

    def _make(self, directory: Directory, base: bytes, member: Member, name: bytes) -> None:
        if member.kind != Kind.DIRECTORY:
            self._maker.make(directory, base, member)
            return
        made = self._maker.directory(directory, base, member)
        self._directories.add(name, made.fd)
        if made.took_place and self._hiding.by_marks:
            # What stood there hid a directory of the layers below; that must stay hidden.
            self._hiding.below(made.fd)
        self._times.add(name, member.mtime_ns)

    def _set_root(self, member: Member) -> None:
        if not member.name:
            raise InvalidArchive("a member has no name")
        if member.kind != Kind.DIRECTORY:
            raise InvalidArchive("the root of a layer can only be a directory")
        root = self._directories.root
        self._attributes.to_open(root.fd, member, is_fresh=False, inherits=False)
        self._directories.refresh_root()
        self._times.add(b"", member.mtime_ns)

    def _is_whiteout(self, member: Member) -> bool:
        """Tell whether a member would be a whiteout for overlayfs."""
        is_null_device = member.kind == Kind.CHARACTER_DEVICE and member.major == member.minor == 0
        return is_null_device and self._hiding.by_marks

    def _hide(self, directory: Directory, marker: bytes) -> None:
        """Carry out a whiteout."""
        if marker == _OPAQUE:
            self._hiding.below(directory.fd)
        elif not marker.startswith(_AUFS):
            name = marker[len(_WHITEOUT) :]
            if name in _NOT_NAMES:
                raise InvalidArchive("a whiteout names no file")
            self._hiding.name(directory, name)

    def _make_unmentioned(self, above: Directory, name: bytes, path: bytes) -> None:
        """Make a directory that the tar does not mention."""
        made = self._maker.unmentioned(above, name)
        try:
            if made.took_place:
                self._hiding.below(made.fd)
            if made.took_place or not self._layers_below.make_alike(made.fd, path, self._times):
                self._attributes.to_unmentioned(made.fd, inherits=above.inherits)
        finally:
            os.close(made.fd)
        self._hiding.placed.add(above.inode, name)


def _explained(error: OSError, member: Member | None) -> InvalidArchive | DriverFailed:
    """Tell the archive's faults from the machine's."""
    name = member.text if member is not None else None
    fault = _FAULTS_OF_THE_ARCHIVE.get(error.errno or 0)
    if fault is not None:
        return InvalidArchive(fault, name)
    return DriverFailed(f"unpack {name!r}" if name is not None else "unpack a layer", error)
