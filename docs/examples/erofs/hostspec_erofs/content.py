"""What a layer adds, read where it lies: in its image or directory, without a walk over the whole tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from hostspec.archive.pack import pack
from hostspec.archive.upper import upper_changes
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.errors import failing
from hostspec.idmap import IdMap
from hostspec.values import Change
from hostspec_erofs.layers import Level
from hostspec_erofs.mounting import mounted_levels

__all__ = ["Difference"]


class Difference(NamedTuple):
    """What the uppermost layer of a chain adds to the others."""

    chain: Sequence[Level]
    """The layer, then all below it, as they are seen through it."""
    idmap: IdMap
    """The map that its own files carry."""
    idmap_below: IdMap
    """The map that the files below show."""

    def changes(self) -> Iterator[Change]:
        """Yield what it changes; errors come while iterating."""
        with self._opened() as (_, changes):
            yield from changes

    @contextmanager
    def packed(self) -> Iterator[BinaryIO]:
        """Give them as a layer tar."""
        with self._opened() as (tree, changes), pack(tree, changes, idmap=self.idmap) as stream:
            yield stream

    @contextmanager
    def _opened(self) -> Iterator[tuple[str, Iterator[Change]]]:
        """Give the tree of what it adds, and what that changes."""
        with (
            failing(f"read what layer {self.chain[0].layer.layer_id} adds"),
            mounted_levels(self.chain) as (own, *below),
        ):
            maps = {"upper_map": self.idmap, "lower_map": self.idmap_below}
            yield own, upper_changes(own, below, form=WhiteoutForm.OVERLAY, **maps)
