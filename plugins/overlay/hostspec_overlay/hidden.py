"""What an upper directory hides of the layers below it, so that nobody sees it whatever its owner.

A directory that was renamed has a note (``redirect``) of where it was: it shows what the layers below have
there, and hides what they have at its own path. So what is hidden at its own path may show at another, and a
directory that is gone may hold one that is not.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from hostspec.archive.lowers import read_xattr
from hostspec.archive.whiteouts import WhiteoutForm

__all__ = ["hidden_by"]


def hidden_by(diff: str, form: WhiteoutForm) -> Container[str]:
    """Return the paths, from the root of the layers below, at which nothing of them shows through.

    It holds what a walk meets that goes no deeper where a path is hidden. Paths hide because there is
    something else than a directory, an opaque directory or a renamed one. Whoever deletes or replaces
    what is there leaves the path hidden, so that a later pass does not meet what an earlier one left alone.

    Args:
        diff: The upper directory.
        form: How the notes in it are written.

    Raises:
        OSError: The operating system refused.
    """
    hidden: set[str] = set()
    shown: set[str] = set()
    # For each directory, where the layers below have what it shows; none for one that they do not show in.
    below: dict[str, str] = {diff: ""}
    for directory, subdirectories, names in os.walk(diff):
        place = below.pop(directory, None)
        links = [name for name in subdirectories if os.path.islink(f"{directory}/{name}")]
        for name in set(subdirectories).difference(links):
            own = None if place is None else f"{place}/{name}"
            origin = _origin(f"{directory}/{name}", place, own, form)
            if origin is not None:
                below[f"{directory}/{name}"] = origin
            if origin != own:
                hidden.update(() if own is None else (own,))
                shown.update(() if origin is None else (origin,))
        if place is not None:
            hidden.update(f"{place}/{name}" for name in (*names, *links))
    return _Hidden(hidden, shown) if shown else hidden


def _origin(path: str, place: str | None, own: str | None, form: WhiteoutForm) -> str | None:
    """Return where the layers below have what a directory shows, or ``None`` where they do not show in it."""
    redirect = read_xattr(path, f"{form.xattr_prefix}redirect")
    if redirect is not None:
        target = os.fsdecode(redirect)
        if target.startswith("/"):
            return target
        return None if place is None else f"{place}/{target}"
    return None if read_xattr(path, f"{form.xattr_prefix}opaque") == b"y" else own


class _Hidden(Container[str]):
    """Hidden paths, among which some show at the path of a renamed directory."""

    def __init__(self, hidden: set[str], shown: set[str]) -> None:
        self._hidden = hidden
        self._shown = shown
        self._ways = {above for path in shown for above in _above(path)}
        self._cut = {way for way in self._ways if self._lies_in_hidden(way)}

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str) or path in self._shown or path in self._ways:
            return False
        # What lies beside a directory that shows elsewhere is as hidden as the one that they lie in.
        return path in self._hidden or os.path.dirname(path) in self._cut

    def _lies_in_hidden(self, way: str) -> bool:
        for path in (way, *_above(way)):
            if path in self._shown:
                return False
            if path in self._hidden:
                return True
        return False


def _above(path: str) -> Iterator[str]:
    """Yield the directories above a path, nearest first, the root left out."""
    while (path := os.path.dirname(path)) != "/":
        yield path
