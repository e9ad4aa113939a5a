"""Where things lie on disk: the layout of containers/storage's overlay driver.

Formats and names are those of ``drivers/overlay/overlay.go`` in containers/storage::

    <home>/
      <layer>/
        diff/        what the layer itself adds: the upper directory
        diff1/ …     what diff was before an ownership pass, newest first; only where there was one
        link         the layer's short name, 26 characters
        lower        "l/NAME:l/NAME…" of the layers below, nearest first; absent where there is none
        empty/       stands in for the layers below where there is none
        work/        the kernel's
        merged/      where the shared mount is
      l/
        NAME         symbolic link to ../<layer>/diff
      tempdirs/      layers being made or deleted, see hostspec.working_area

``lower`` names only the ``diff`` of each layer; its ``diff1``… follow it in a mount without being named.
A short name that is not in this home is looked up in the homes of additional stores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from hostspec.errors import StoreCorrupt
from hostspec_overlay.roots import copy_root, make_directory, mask_root

__all__ = [
    "LINKS",
    "MAX_DEPTH",
    "SHARED_DEPTH",
    "LayerDirectory",
    "Lower",
    "is_layer_id",
    "layer_ids",
    "lower_chain",
    "make_layer",
    "make_link",
    "numbered_diffs",
    "restore_links",
]

MAX_DEPTH = 500
"""Directories that the kernel mounts on each other (OVL_MAX_STACK), the upper one not counted."""

SHARED_DEPTH = 128
"""How many layers containers/storage mounts below a container, up to version 1.43 at least (overlay.go)."""

LINKS = "l"
"""Directory of the short names, in a home."""

_LINK_NAME_LENGTH = 26
_LINK_NAME_BYTES = 16  # 128 bits are 26 characters in base 32

_NOT_LAYERS = frozenset({"", ".", "..", LINKS, "tempdirs", "staging"})
_TEMPORARY_NAMES_OF_OTHERS = ("compat", "metacopy-check", "opaque-bug-check", "volatile-check")
_HEX = frozenset("0123456789abcdef")
_ID_LENGTH = 64


class Lower(NamedTuple):
    """One directory below the upper one in a mount."""

    home: str
    """Absolute path of the driver's home in which it lies."""
    name: str
    """Where it lies, relative to ``home``."""

    @property
    def path(self) -> str:
        """Absolute path."""
        return f"{self.home}/{self.name}"


class LayerDirectory(NamedTuple):
    """A layer's directory, and what lies in it."""

    home: str
    """Absolute path of the home in which it lies: the driver's, an additional store's, or a working area."""
    layer_id: str
    writable: bool = True
    """False in an additional store."""

    @property
    def path(self) -> str:
        """Absolute path of the directory."""
        return f"{self.home}/{self.layer_id}"

    @property
    def diff(self) -> str:
        """The upper directory."""
        return f"{self.path}/diff"

    @property
    def work(self) -> str:
        """The kernel's own directory."""
        return f"{self.path}/work"

    @property
    def merged(self) -> str:
        """Where the shared mount is."""
        return f"{self.path}/merged"

    @property
    def empty(self) -> str:
        """Stands in for layers below."""
        return f"{self.path}/empty"

    def read_link(self) -> str:
        """Return the layer's short name.

        Raises:
            OSError: There is none, or it cannot be read.
        """
        with open(f"{self.path}/link", encoding="utf-8") as file:
            return file.read().strip()

    def entry(self) -> str:
        """Return what the ``lower`` files of other layers call this layer: ``l/NAME``.

        Raises:
            OSError: The layer has no short name, and none can be found or made.
        """
        try:
            return f"{LINKS}/{self.read_link()}"
        except FileNotFoundError:
            restore_links(self.home)
            return f"{LINKS}/{self.read_link()}"

    def lower_entries(self) -> tuple[str, ...]:
        """Return what ``lower`` names, nearest first."""
        try:
            with open(f"{self.path}/lower", encoding="utf-8") as file:
                text = file.read().strip()
        except FileNotFoundError:
            return ()
        return tuple(entry for entry in text.split(":") if entry)

    def as_lower(self, name: str) -> Lower:
        """Return one of the layer's directories as a layer of a mount."""
        return Lower(self.home, f"{self.layer_id}/{name}")


def is_layer_id(text: str) -> bool:
    """Tell whether a layer may have this ID: a file name that the layout does not use itself."""
    return text not in _NOT_LAYERS and "/" not in text and "\0" not in text


def new_link_name() -> str:
    """Return a short name nobody else has: 26 characters, capital letters and digits 2 to 7."""
    from base64 import b32encode  # noqa: PLC0415 - only making layers needs it

    return b32encode(os.urandom(_LINK_NAME_BYTES)).decode("ascii")[:_LINK_NAME_LENGTH]


def make_link(layer: LayerDirectory, link: str) -> None:
    """Let a short name lead to a layer."""
    os.symlink(f"../{layer.layer_id}/diff", f"{layer.home}/{LINKS}/{link}")


def make_layer(
    layer: LayerDirectory,
    below: LayerDirectory | None,
    *,
    owner: tuple[int, int],
    mask: int | None = None,
    limit: Callable[[str], None] | None = None,
) -> None:
    """Make an empty layer, its short name included; ``diff`` begins as a copy of the root below.

    Args:
        layer: Where; its home has a directory for short names.
        below: The layer on which it is to stand, or ``None``.
        owner: Host UID and GID of the layer's directory, and of its root where nothing is below.
        mask: Permission bits of that root on disk, the usual ones kept apart; ``None`` to set the usual ones.
        limit: Given the path of the layer's directory while that is empty, limits what it may occupy.

    Raises:
        OSError: The operating system refused; a part may be left.
    """
    make_directory(layer.path, mode=0o700, owner=owner)
    if limit is not None:
        limit(layer.path)
    make_directory(layer.diff, owner=owner)
    if below is not None:
        copy_root(below.diff, layer.diff)
    elif mask is not None:
        mask_root(layer.diff, mask)
    make_directory(layer.work, mode=0o700, owner=owner)
    make_directory(layer.merged, mode=0o700, owner=owner)
    link = new_link_name()
    _write(f"{layer.path}/link", link)
    make_link(layer, link)
    if below is None:
        make_directory(layer.empty, mode=0o700, owner=owner)
    else:
        _write(f"{layer.path}/lower", ":".join((below.entry(), *below.lower_entries())))


def layer_ids(home: str) -> Iterator[tuple[str, int]]:
    """Yield the ID of each layer in a home, with the inode number of its directory."""
    try:
        entries = os.scandir(home)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            name = entry.name
            if name in _NOT_LAYERS or not entry.is_dir(follow_symlinks=False):
                continue
            usual = len(name) == _ID_LENGTH and _HEX.issuperset(name)
            # Other clients try out mounts in directories of their own in here.
            if usual or (
                not name.startswith(_TEMPORARY_NAMES_OF_OTHERS) and os.path.lexists(f"{entry.path}/diff")
            ):
                yield name, entry.inode()


def numbered_diffs(diff: str) -> Iterator[str]:
    """Yield the path of each numbered directory beside a ``diff``, newest first.

    Args:
        diff: Path of the ``diff``; may be a short name, beside whose target we then look.
    """
    beside = f"{diff}/../diff"
    for number in count(1):
        path = f"{beside}{number}"
        if not os.path.isdir(path):
            return
        yield path


def lower_chain(layer: LayerDirectory, homes: Sequence[str]) -> list[Lower]:
    """Return every directory below a layer's ``diff``, uppermost first.

    Short names that got lost are restored on the way.

    Args:
        layer: The layer.
        homes: Where to look short names up, the driver's own home first.

    Raises:
        StoreCorrupt: A layer below is missing.
    """
    chain = [layer.as_lower(os.path.basename(path)) for path in numbered_diffs(layer.diff)]
    for entry in layer.lower_entries():
        home = _home_of(entry, homes) or _restored(entry, homes, layer)
        diff = f"{home}/{entry}"
        chain.append(Lower(home, entry))
        chain.extend(Lower(home, path[len(home) + 1 :]) for path in numbered_diffs(diff))
    return chain


def _home_of(entry: str, homes: Sequence[str]) -> str | None:
    return next((home for home in homes if os.path.isdir(f"{home}/{entry}")), None)


def _restored(entry: str, homes: Sequence[str], layer: LayerDirectory) -> str:
    restore_links(homes[0])
    home = _home_of(entry, homes)
    if home is None:
        raise StoreCorrupt(
            f"{layer.path}/lower", f"names {entry}, and there is no such layer; remove layer {layer.layer_id}"
        )
    return home


def restore_links(home: str) -> None:
    """Make ``link`` files and short names agree again, where a crash lost one of the two."""
    os.makedirs(f"{home}/{LINKS}", exist_ok=True)
    named: dict[str, str] = {}
    for name in os.listdir(f"{home}/{LINKS}"):
        target = _link_target(f"{home}/{LINKS}/{name}")
        if target is not None:
            named[target] = name
    for layer_id, _ in layer_ids(home):
        layer = LayerDirectory(home, layer_id)
        try:
            link = layer.read_link()
        except FileNotFoundError:
            link = named.get(layer_id) or new_link_name()
            _write(f"{layer.path}/link", link)
        if not os.path.lexists(f"{home}/{LINKS}/{link}"):
            make_link(layer, link)


def _link_target(path: str) -> str | None:
    """Return the layer ID to which a short name leads, or ``None`` where it is none."""
    try:
        parts = os.readlink(path).split("/")
    except OSError:
        return None
    return parts[1] if len(parts) == 3 and parts[0] == ".." and parts[2] == "diff" else None  # noqa: PLR2004


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
