"""What a layer adds: its upper directory as changes and as a tar, without a mount."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostspec.archive.upper import inspect_upper, upper_changes
from hostspec.disk_usage import content_bytes
from hostspec.idmap import IdMap
from hostspec.values import Change, LayerRef
from hostspec_overlay.environment import whiteout_form
from hostspec_overlay.homes import Homes
from hostspec_overlay.layout import LayerDirectory, numbered_diffs
from hostspec_overlay.roots import root_is_shifted, root_is_untouched

__all__ = ["Difference", "difference"]


class Difference(NamedTuple):
    """A layer's upper directory, compared with what is below it in the driver."""

    layer: LayerDirectory
    below: Sequence[str]
    """Real paths of the directories below ``diff``, uppermost first."""
    idmap: IdMap
    """The map that the files in ``diff`` carry."""
    idmap_below: IdMap
    """The map that the files below carry."""

    def needs_mount(self, *, with_content: bool = False) -> bool:
        """Tell whether only the kernel can follow what is in these directories: renamed ones.

        Args:
            with_content: The layer's files are to be read too, so that stubs without theirs (``metacopy``)
                need a mount as well.

        Raises:
            DriverFailed: The operating system refused.
        """
        own = _inspected(self.layer.diff)
        if own.redirects or (with_content and own.stubs):
            return True
        return any(_inspected(directory).redirects for directory in self.below)

    def changes(self) -> Iterator[Change]:
        """Yield what the layer changes.

        Raises:
            DriverFailed: The operating system refused.
        """
        found = upper_changes(
            self.layer.diff,
            self.below,
            form=whiteout_form(),
            upper_map=self.idmap,
            lower_map=self.idmap_below,
        )
        untouched = self._root_is_untouched()
        for change in found:
            if change.path != "/" or not untouched:
                yield change

    def _root_is_untouched(self) -> bool:
        """Tell whether the root is none of a container's changes, though it need not carry its IDs.

        It does not before the first mount, or where the map leaves out the owner of the root below.
        """
        if not self.below:
            return not root_is_shifted(self.idmap, self.layer.diff, None)
        return self.idmap != self.idmap_below and root_is_untouched(
            self.layer.diff, self.below[0], self.idmap
        )

    def content_bytes(self) -> int:
        """Return the bytes of content of the files that changed, each inode counted once.

        Raises:
            DriverFailed: The operating system refused.
            OSError: The operating system refused.
        """
        return content_bytes(self.layer.diff, self.changes())


def difference(homes: Homes, layer: LayerRef, parent: LayerRef | None) -> Difference | None:
    """Return what a layer adds to ``parent``, or ``None`` where it does not stand on it.

    Raises:
        Unknown: There is no such layer or parent.
        StoreCorrupt: A layer below is missing.
        OSError: The operating system refused.
    """
    found = homes.find(layer.layer_id)
    below = homes.find(parent.layer_id) if parent else None
    entries = found.lower_entries()
    if parent is None or below is None:
        return None if entries else Difference(found, [], layer.idmap, layer.idmap)
    if entries[:1] != (below.entry(),):
        return None
    # After an ownership pass all that is inherited has the layer's own map.
    passed = any(numbered_diffs(found.diff))
    idmap_below = layer.idmap if passed else parent.idmap
    return Difference(found, homes.directories_below(found), layer.idmap, idmap_below)


class _Inspected(NamedTuple):
    redirects: bool
    stubs: bool


def _inspected(directory: str) -> _Inspected:
    """Look for what overlayfs may have left in an upper directory, if it ever was one."""
    work = os.path.join(os.path.dirname(directory), "work")
    if not os.path.isdir(f"{work}/work"):
        # Only a writable mount makes that directory, and only through such a mount come stubs and renames.
        return _Inspected(redirects=False, stubs=False)
    facts = inspect_upper(directory, form=whiteout_form())
    return _Inspected(redirects=facts.has_redirects, stubs=facts.has_stubs)
