"""Methods of the store that act on the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.errors import HostspecError
    from hostspec.store.graph_root import GraphRoot
    from hostspec.store.upkeep.disk_space import DiskSpace
    from hostspec.store.upkeep.findings import CheckReport

__all__ = ["UpkeepMethods"]


class UpkeepMethods:
    """Checks, repairs, and room on the disk."""

    _root: GraphRoot

    def check(self, *, quick: bool = False, max_age: float = 86400) -> CheckReport:
        """Look for damage; nothing is changed.

        Args:
            quick: Do not compare every file of every image layer with what its tar says of it. Digests
                of layers are compared all the same.
            max_age: Seconds for which a layer may be there that no image or container uses.

        Returns:
            What is wrong.
        """
        from hostspec.store.upkeep.checking import check

        return check(self._root, quick=quick, max_age=max_age)

    def repair(self, report: CheckReport, *, containers: bool = False) -> Sequence[HostspecError]:
        """Remove what is damaged, and images and containers that stand on it.

        What lies in additional stores stays, and what something undamaged stands on.

        Args:
            report: What :meth:`check` has found.
            containers: Remove damaged containers too, with all that was written in them.

        Returns:
            Why something could not be removed.
        """
        from hostspec.store.upkeep.repairing import repair

        return repair(self._root, report, containers=containers)

    def collect_garbage(self) -> Sequence[str]:
        """Remove driver layers, tar-split files and data directories that no record names.

        What living processes are making is left alone.

        Returns:
            IDs of the driver layers.

        Raises:
            StoreCorrupt: A record cannot be understood, which may name any of them; nothing was removed.
            InvalidRequest: Records are hidden by the way in which the store was opened; as before.
        """
        from hostspec.store.upkeep.garbage import collect_garbage

        return collect_garbage(self._root)

    def deduplicate(self, method: str = "size") -> int:
        """Let equal files of images' layers share their blocks.

        Args:
            method: What makes files candidates, before the kernel compares them: ``"size"``, ``"crc"``
                or ``"sha256"``.

        Returns:
            Bytes that need no room of their own now, those included that did not need it before.

        Raises:
            OperationNotSupported: Neither the driver nor its file system can.
            InvalidRequest: There is no such method.
        """
        from hostspec.store.upkeep.deduplication import deduplicate

        return deduplicate(self._root, method)

    def disk_space(self) -> DiskSpace:
        """Return what all layers occupy, by what they are for, and the driver's home as a whole."""
        from hostspec.store.upkeep.disk_space import disk_space

        return disk_space(self._root)

    def wipe(self) -> None:
        """Remove everything, and leave nothing mounted."""
        from hostspec.store.removal import wipe

        wipe(self._root)
        self._root.clean_up_driver()
