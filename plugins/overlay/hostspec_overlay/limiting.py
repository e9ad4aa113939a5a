"""Whether layers can be limited here, and what limits a new one; :mod:`hostspec_overlay.quotas` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hostspec.errors import OperationNotSupported
from hostspec.values import CreateOptions, DiskUsage
from hostspec_overlay.environment import BackingMount, enforces_limits
from hostspec_overlay.layout import LayerDirectory
from hostspec_overlay.options import DRIVER, Limits, wanted_limits

if TYPE_CHECKING:
    from hostspec_overlay.quotas import ProjectLimits

__all__ = ["LayerLimits"]


class LayerLimits(NamedTuple):
    """The limits of layers in one home."""

    home: str
    """Absolute path of the driver's home."""
    run_root: str
    """Absolute path of the directory for what need not survive a reboot."""
    backing: BackingMount
    """What the home lies on."""
    usual: Limits
    """For writable layers that are given no other."""

    @property
    def enforced(self) -> bool:
        """Whether there are project quotas that this process may set."""
        return enforces_limits(self.backing)

    def for_new_layer(self, options: CreateOptions) -> Callable[[str], None] | None:
        """Return what gives a new layer's directory its limits, or ``None`` where it has none.

        Raises:
            InvalidRequest: A storage option is not known, or its value is no size or number.
            OperationNotSupported: There are no project quotas.
        """
        limits = wanted_limits(options, self.usual)
        self._refuse_unless_enforced(limits)
        if limits == Limits():
            return None
        projects = self._projects()
        return lambda directory: projects.limit(directory, limits)

    def refuse_unless_enforced(self) -> None:
        """Refuse the usual limits where they would not be kept.

        Raises:
            OperationNotSupported: There are no project quotas.
        """
        self._refuse_unless_enforced(self.usual)

    def added_to(self, found: DiskUsage, layer: LayerDirectory) -> DiskUsage:
        """Return what a layer occupies together with what it may occupy.

        Raises:
            OSError: The file system refused.
        """
        if not (self.enforced and layer.writable):
            return found
        project, limits = self._projects().usage(layer.path)
        return found._replace(
            limit_bytes=limits.limit_bytes, limit_inodes=limits.limit_inodes, project=project
        )

    def _refuse_unless_enforced(self, limits: Limits) -> None:
        if limits != Limits() and not self.enforced:
            raise OperationNotSupported(
                DRIVER,
                f"limit layers ({limits})",
                f"there are no project quotas at {self.home}, on {self.backing.filesystem}; they need XFS "
                "mounted with prjquota, or ext4 made with -O quota,project and mounted with prjquota, and "
                "a kernel that has them",
            )

    def _projects(self) -> ProjectLimits:
        from hostspec_overlay.quotas import ProjectLimits  # noqa: PLC0415 - most layers have no limits

        return ProjectLimits(self.home, self.run_root)
