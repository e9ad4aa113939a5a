"""Which contents of a tar lie in files once it is unpacked, as far as the tar alone tells."""

from __future__ import annotations

from hostspec.archive.content_places import Came, ContentPlaces, place_in_tree
from hostspec.archive.headers import Kind
from hostspec.archive.member import Member

__all__ = ["MAX_EMBEDDED", "ContentFiles"]

MAX_EMBEDDED = 64 << 20
"""Bytes of content of one layer that may lie in no file of it, so that they must be kept elsewhere."""

_MAX_PATH = 4096


class ContentFiles:
    """Is told of a tar's members one after the other.

    Attributes:
        lost: Why some content will be nowhere, or ``None``.
        needs_proof: Whether only the unpacked files can tell that each content lies under its name: the
            tar led a name through what may be a symbolic link, or put something else in a directory's place.
    """

    def __init__(self, *, tree_is_empty: bool) -> None:
        """Say whether anything is in the tree before the tar is unpacked into it."""
        self.lost: str | None = None
        self.needs_proof = False
        self._tree_is_empty = tree_is_empty
        self._places = ContentPlaces()
        self._above = b""
        self._embedded = 0

    def has(self, member: Member) -> bool:
        """Take the next member, and tell whether its content will lie in the file of its name.

        Members without content have it, too, but for those whose name the tar had before.
        """
        place = place_in_tree(member.name)
        self._enter(place.rpartition(b"/")[0])
        came = _as_what(member)
        # At worst, two places that are taken for one cost a segment, or the tar-split file.
        before = self._places.note(place, came)
        if before is None:
            if came is not Came.OTHER or not member.stored:
                return True
        elif before is Came.CONTENT:
            self._lose(f"{member.text!r} is in the tar twice")
        else:
            self._replace(place, before, came)
        self._embedded += member.stored
        if self._embedded > MAX_EMBEDDED:
            self._lose(f"more than {MAX_EMBEDDED} bytes lie in no file")
        return False

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self._places.clear()

    def _replace(self, place: bytes, before: Came, came: Came) -> None:
        """Note that a place came again, after it had no content."""
        if came is Came.CONTENT:
            self._places.note(place, Came.OTHER)  # it will not be looked for there
        if (came is Came.DIRECTORY) != (before is Came.DIRECTORY):
            self.needs_proof = True

    def _enter(self, above: bytes) -> None:
        """Make sure that what comes next is in a directory of that name, and nowhere else."""
        if above != self._above:
            self._above = above
            if not self._is_directory(above):
                self.needs_proof = True

    def _is_directory(self, place: bytes) -> bool:
        """Tell whether a place and all above it are sure to be directories, as which they are noted then."""
        if len(place) > _MAX_PATH:
            return False  # it will not be unpacked, either
        unmentioned = []
        came: Came | None = Came.DIRECTORY
        while place and (came := self._places.get(place)) is None:
            unmentioned.append(place)
            place = place.rpartition(b"/")[0]
        if unmentioned and not self._tree_is_empty:
            return False  # there may be a symbolic link
        if place and came is not Came.DIRECTORY:
            return False
        for each in unmentioned:
            self._places.note(each, Came.DIRECTORY)
        return True


def _as_what(member: Member) -> Came:
    if member.kind == Kind.DIRECTORY:
        return Came.DIRECTORY
    if not member.stored or member.sparse is not None or b".wh." in member.name:
        return Came.OTHER
    return Came.CONTENT
