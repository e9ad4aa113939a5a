"""The sub-command that copies files into a layer, out of one, or from one to another."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import mkdtemp
from typing import NamedTuple

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.errors import InvalidRequest
from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.file_identity import making_files_as
from hostspec.kernel.resolve import open_in_root, open_parent
from hostspec.store import Store
from hostspec.treecopy import copy_changes
from hostspec.values import Change, ChangeKind

__all__ = ["copy"]

MOST_LINKS = 40
NEW_DIRECTORY_MODE = 0o755


class Place(NamedTuple):
    """One side of a copy: a path that is looked up in a root that it cannot leave."""

    root: int
    """Descriptor of a layer's root directory, or of the host's."""
    path: str
    """The path in it."""
    idmap: IdMap
    """The map under which files are seen there."""
    given: str
    """As the user wrote it."""


class OwnerChange(IdShift):
    """A shift that also gives everything one owner."""

    def __init__(self, old: IdMap, new: IdMap, owner: tuple[int, int]) -> None:
        super().__init__(old, new)
        self._owner = IdShift(IdMap(), new).owner(*owner)

    def owner(self, uid: int, gid: int, path: str = "") -> tuple[int, int]:
        """Return that owner, as a host ID, whoever it was."""
        del uid, gid, path
        return self._owner


def copy(context: Context, arguments: Arguments) -> None:
    """Copy files and directories, as ``[LAYER:]PATH``; of a directory its content."""
    owner = _owner(arguments.one("chown"))
    *sources, last = arguments.positionals
    if not sources:
        raise UsageError("copy", "needs a source and a target")
    with ExitStack() as opened:
        target = opened.enter_context(_place(context.store, last))
        for each in sources:
            with _place(context.store, each) as source:
                shift = (
                    IdShift(source.idmap, target.idmap)
                    if owner is None
                    else OwnerChange(source.idmap, target.idmap, owner)
                )
                root_owner = IdShift(IdMap(), target.idmap).owner(0, 0)
                with _failing(each, last), making_files_as(*root_owner):
                    _copy(source, target, shift)


def _owner(given: str | None) -> tuple[int, int] | None:
    """Read ``UID[:GID]``; the GID is the UID where only that is given."""
    if given is None:
        return None
    uid, colon, gid = given.partition(":")
    numbers = (uid, gid if colon else uid)
    if not all(each.isascii() and each.isdigit() and int(each) < ID_LIMIT for each in numbers):
        raise UsageError("--chown", f"{given!r} is not UID or UID:GID in numbers")
    return int(numbers[0]), int(numbers[1])


@contextmanager
def _place(store: Store, given: str) -> Iterator[Place]:
    """Open one side; a layer is mounted for the time of the ``with`` block."""
    reference, colon, path = given.partition(":")
    if not given:
        raise UsageError("copy", "an empty path is none")
    if not colon:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ending = "/" if given.endswith("/") else ""
            yield Place(root, os.path.abspath(given) + ending, IdMap(), given)
        finally:
            os.close(root)
        return
    layer = store.layer(store.container(reference).layer if _is_container(store, reference) else reference)
    owner = next((each for each in store.containers() if each.layer == layer.id), None)
    idmap = layer.idmap or (owner.idmap if owner is not None else IdMap())
    with store.mounting(layer.id, read_only=layer.read_only) as mounted:
        root = os.open(mounted, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Place(root, path or "/", idmap, given)
        finally:
            os.close(root)


def _is_container(store: Store, reference: str) -> bool:
    return not store.has_layer(reference) and store.has_container(reference)


def _copy(source: Place, target: Place, shift: IdShift) -> None:
    directory, name, found = _opened_source(source)
    try:
        if stat.S_ISDIR(found.st_mode):
            _copy_directory(directory, name, target, shift)
        else:
            _copy_file(directory, name, target, shift)
    finally:
        os.close(directory)


def _opened_source(source: Place) -> tuple[int, str, os.stat_result]:
    """Follow links to what is to be copied.

    Returns:
        Descriptor of its directory, its name there, and what it is.
    """
    path = source.path
    for _ in range(MOST_LINKS):
        directory, name = open_parent(source.root, path)
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                return directory, name, found
            linked = os.readlink(name, dir_fd=directory)
            # An absolute link starts at the root again, which join() sees to.
            path = os.path.join(path.rstrip("/").rpartition("/")[0] or "/", linked)
        except OSError:
            os.close(directory)
            raise
        os.close(directory)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), source.given)


def _copy_directory(directory: int, name: str, target: Place, shift: IdShift) -> None:
    """Copy what is in a directory into the target directory, which is made if missing."""
    source = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        # All of them first: the target may lie in the source.
        changes = list(_everything_in(source))
        owner = shift.owner(0, 0) if isinstance(shift, OwnerChange) else None
        into = _opened_target_directory(target, target.path, owner)
        try:
            copy_changes(_path_of(source), _path_of(into), changes, shift=shift)
        finally:
            os.close(into)
    finally:
        os.close(source)


def _everything_in(directory: int) -> Iterator[Change]:
    for at, directories, files, _ in os.fwalk(".", dir_fd=directory):
        for name in sorted((*directories, *files)):
            yield Change(f"{at[1:]}/{name}", ChangeKind.ADD)


def _copy_file(directory: int, name: str, target: Place, shift: IdShift) -> None:
    """Copy anything that is no directory, under the target's name or, after a slash, its own."""
    path = target.path + name if target.path.endswith("/") else target.path
    parent, _, final = path.rpartition("/")
    if final in ("", ".", ".."):
        raise InvalidRequest(target.given, "does not name a file")
    into = _opened_target_directory(target, parent)
    try:
        # Made beside it and renamed, so that nobody sees a half of it.
        scratch = os.path.basename(mkdtemp(prefix=".hostspec-copy-", dir=_path_of(into)))
        try:
            beside = os.open(
                scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=into
            )
            try:
                change = Change(f"/{name}", ChangeKind.ADD)
                copy_changes(_path_of(directory), _path_of(beside), [change], shift=shift)
                os.rename(name, final, src_dir_fd=beside, dst_dir_fd=into)
            finally:
                os.close(beside)
        finally:
            shutil.rmtree(scratch, dir_fd=into)
    finally:
        os.close(into)


def _opened_target_directory(target: Place, path: str, owner: tuple[int, int] | None = None) -> int:
    """Open a directory of the target by what its links say inside its root.

    If missing it is made, for ``owner`` or else the mapped root.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY
    wanted = path.rstrip("/") or "/"
    try:
        return open_in_root(target.root, wanted, flags)
    except FileNotFoundError:
        # A name below it, so that it is itself one of those on the way.
        above, _ = open_parent(target.root, f"{wanted}/.", create_mode=NEW_DIRECTORY_MODE)
        os.close(above)
        made = open_in_root(target.root, wanted, flags)
        if owner is not None:
            os.chown(made, *owner)
        return made


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def _failing(source: str, target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise InvalidRequest(f"copying {source} to {target}", f"failed: {error.strerror}{where}") from error
