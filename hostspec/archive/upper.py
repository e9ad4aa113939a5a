"""What an overlay's upper directory says, against the layers below it.

Without a mount: a walk over the upper directory alone, with look-ups below. The answer is what
:func:`~hostspec.archive.changes.compare_trees` says of the two mounted trees, but for files that differ in
content only, which are seen here: what lies in the upper directory with nothing else changed is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from hostspec.archive.comparison import Child, list_entries, list_types, looks_untouched, walk_changes
from hostspec.archive.descent import Descent
from hostspec.archive.entries import Entry, Owners, differ, same_content
from hostspec.archive.lowers import MergedDirectory, NotNative, read_xattr
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import DriverFailed
from hostspec.idmap import IdMap
from hostspec.values import Change, ChangeKind

__all__ = ["UpperFacts", "inspect_upper", "upper_changes"]


class UpperFacts(NamedTuple):
    """What a driver has to know of an upper directory before it answers without a mount."""

    has_redirects: bool
    """Directories were renamed (``redirect_dir``): only a mount shows the changes."""
    has_stubs: bool
    """There are files without their content (``metacopy``): pack from a mount."""


def inspect_upper(upper: str, *, form: WhiteoutForm) -> UpperFacts:
    """Look through an upper directory for what only a mount can follow.

    A container may be writing to it; what is deleted meanwhile is left out.

    Raises:
        DriverFailed: The operating system refused.
    """
    redirect = form.xattr_prefix + "redirect"
    metacopy = form.xattr_prefix + "metacopy"
    stubs = False
    try:
        for _, names, files, fd in os.fwalk(upper):
            here = f"/proc/self/fd/{fd}/"
            if any(redirect in _xattrs(here + name) for name in names):
                return UpperFacts(has_redirects=True, has_stubs=stubs)
            if not stubs:
                stubs = any(metacopy in _xattrs(here + name) for name in files)
    except OSError as error:
        raise DriverFailed(f"look through {upper}", error) from error
    return UpperFacts(has_redirects=False, has_stubs=stubs)


def _xattrs(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except FileNotFoundError:
        return []


def upper_changes(
    upper: str,
    lowers: Sequence[str],
    *,
    form: WhiteoutForm,
    upper_map: IdMap = IdMap(),
    lower_map: IdMap = IdMap(),
) -> Iterator[Change]:
    """Yield what an overlay's upper directory changes, in the order of a walk.

    Args:
        upper: The upper directory.
        lowers: The layers below, topmost first.
        form: ``OVERLAY`` or ``USER_OVERLAY``.
        upper_map: The map that the files of ``upper`` carry.
        lower_map: The map that the files of ``lowers`` carry.

    Raises:
        NotNative: Directories were renamed by overlayfs; from the first step on. A driver that asks
            :func:`inspect_upper` before (of the lowers too) does not meet it.
        DriverFailed: The operating system refused.
    """
    with ExitStack() as held:
        try:
            descent = held.enter_context(Descent(upper))
            below = held.enter_context(MergedDirectory.of(lowers, form))
        except OSError as error:
            raise DriverFailed(f"read {upper}", error) from error
        yield from walk_changes(_Upper(descent, below, form, Owners(upper_map), Owners(lower_map)))


class _Upper:
    """Compares an upper directory with the merged layers below it."""

    def __init__(
        self,
        descent: Descent,
        below: MergedDirectory,
        form: WhiteoutForm,
        owners: Owners,
        owners_below: Owners,
    ) -> None:
        self._descent = descent
        self._below = below
        self._prefix = form.xattr_prefix
        self._form = form
        self._owners = owners
        self._owners_below = owners_below
        self._hiding: list[str] = []
        # The uppermost directory on the way that no layer below has.
        self._new_from: str | None = None

    def root(self) -> ChangeKind | None:
        root = self._descent.root
        ours = Entry(root, ".", os.fstat(root), self._owners)
        if not self._below.fds:
            return None if looks_untouched(ours) else ChangeKind.MODIFY
        fd = self._below.fds[0]
        theirs = Entry(fd, ".", os.fstat(fd), self._owners_below)
        return ChangeKind.MODIFY if differ(ours, theirs) else None

    def children(self, path: str) -> list[Child]:
        try:
            fd = self._descent.enter_child(path) if path else self._descent.root
        except (FileNotFoundError, NotADirectoryError):
            return []  # deleted since it was listed
        below = self._walk_below(path)
        if below is None:
            new = self._new(fd)
            return [Child.added(name, new[name]) for name in sorted(new)]
        with below:
            return self._compare(path, fd, list_entries(fd, self._owners), below)

    def _walk_below(self, path: str) -> MergedDirectory | None:
        """Open a directory in the layers below; each is asked for after the one in which it lies."""
        if self._new_from is not None and path.startswith(f"{self._new_from}/"):
            return None
        below = self._below.walk(path.split("/")[1:])
        self._new_from = path if below is None else None
        return below

    def _new(self, fd: int) -> dict[str, int]:
        """Return the types of what is in a directory that no layer below has, by name."""
        found = list_types(fd)
        with MergedDirectory([os.dup(fd)], self._form) as here:
            for name in here.whiteouts_among(found):
                del found[name]
        return found

    def _compare(self, path: str, fd: int, ours: dict[str, Entry], below: MergedDirectory) -> list[Child]:
        whiteouts = self._whiteouts(fd, ours)
        names = set(ours)
        if self._is_hiding(path, fd):
            names |= below.names()
        children = []
        for name in sorted(names):
            new = None if name in whiteouts else ours.get(name)
            found = below.find(name)
            old = Entry(below.fds[found.level], name, found.status, self._owners_below) if found else None
            if new is None:
                if old is not None:
                    children.append(Child(name, ChangeKind.DELETE))
            elif old is None:
                children.append(Child.added(name, new.file_type))
            else:
                same = not differ(new, old) and (
                    new.is_directory or self._same_content(path, new, old, below)
                )
                kind = None if same else ChangeKind.MODIFY
                children.append(Child(name, kind, new.file_type, new.is_directory))
        return children

    def _same_content(self, path: str, new: Entry, old: Entry, below: MergedDirectory) -> bool:
        """Tell whether two files that are otherwise equal hold the same; not, where only the kernel knows."""
        if self._is_stub(new):
            return not self._is_elsewhere(path, new)
        content = self._content(path, old, below)
        return content is not None and same_content(new, content)

    def _content(self, path: str, old: Entry, below: MergedDirectory) -> Entry | None:
        """Return the file with the content of one in the layers below, which may be a stub itself."""
        for fd in below.fds[below.fds.index(old.fd) :]:
            try:
                status = os.stat(old.name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found = Entry(fd, old.name, status, self._owners_below)
            if not self._is_stub(found):
                return found
            if self._is_elsewhere(path, found):
                return None
        return None

    def _is_stub(self, entry: Entry) -> bool:
        return read_xattr(entry.path(), self._prefix + "metacopy") is not None

    def _is_elsewhere(self, path: str, stub: Entry) -> bool:
        """Tell whether a stub's content is below another name: it was renamed, or linked there."""
        origin = read_xattr(stub.path(), self._prefix + "redirect")
        return origin is not None and os.fsdecode(origin) not in {stub.name, f"{path}/{stub.name}"}

    def _is_hiding(self, path: str, fd: int) -> bool:
        """Tell whether nothing of the layers below shows through in this directory.

        A walk comes to a directory before what is in it, so that it is enough to
        remember the topmost opaque ones on the way.
        """
        if read_xattr(fd, self._prefix + "redirect") is not None:
            raise NotNative(f"{path}: was renamed by overlayfs (redirect_dir)")
        while self._hiding and not f"{path}/".startswith(self._hiding[-1]):
            self._hiding.pop()
        if self._hiding:
            return True
        if read_xattr(fd, self._prefix + "opaque") != b"y":
            return False
        self._hiding.append(f"{path}/")
        return True

    def _whiteouts(self, fd: int, ours: dict[str, Entry]) -> set[str]:
        """Return the names in an upper directory that say that something is gone."""
        here = MergedDirectory([os.dup(fd)], self._form)
        with here:
            return {name for name, entry in ours.items() if here.is_whiteout(0, name, entry.status)}
