"""The kernel's quota warnings, with the containers that they are about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from hostspec.directory_layers.layers import nearest_existing
from hostspec.errors import InvalidRequest, OperationNotSupported, Unknown, failing
from hostspec.kernel.quota_warnings import QuotaWarning, QuotaWarnings, quota_warnings, sends_warnings
from hostspec.store import Container, Store
from hostspec.values import DiskUsage

__all__ = ["QuotaEvent", "QuotaEvents", "quota_events"]


class QuotaEvent(NamedTuple):
    """One warning on the file system of the store's containers."""

    warning: QuotaWarning
    """What the kernel says."""
    container: Container | None
    """Whose layer it is about, or ``None`` where that is no container of the store, or no more."""
    limit: int | None
    """The layer's limit, in bytes or inodes as the warning is, or ``None`` where it is not known."""


class QuotaEvents:
    """Listens for warnings; see :func:`quota_events`."""

    def __init__(self, store: Store, warnings: QuotaWarnings) -> None:
        """Take what listens."""
        self._store = store
        self._warnings = warnings
        self._usages: dict[str, DiskUsage] = {}

    def until(self, stop: int) -> Iterator[QuotaEvent]:
        """Yield each warning on the containers' file system when it comes.

        Args:
            stop: A descriptor; the end comes when there is something to read from it.

        Raises:
            DriverFailed: The kernel refused.
        """
        with failing("listen for quota warnings"):
            for warning in self._warnings.until(stop):
                if warning.device == os.stat(nearest_existing(self._store.driver.home)).st_dev:
                    yield self._event(warning)

    def _event(self, warning: QuotaWarning) -> QuotaEvent:
        container = self._limited_by(warning.number) if warning.kind == "project" else None
        if container is None:
            return QuotaEvent(warning, None, None)
        usage = self._usages[container.layer]
        limit = usage.limit_bytes if warning.resource == "bytes" else usage.limit_inodes
        return QuotaEvent(warning, container, limit)

    def _limited_by(self, project: int) -> Container | None:
        """Return the container whose layer is that project.

        A project's number may be given again when its layer is gone, so records are read each time; but a
        layer keeps its number, and is measured once.
        """
        for container in self._store.containers():
            with suppress(Unknown):  # a container that is being removed
                if container.layer not in self._usages:
                    self._usages[container.layer] = self._store.driver.disk_usage(container.layer)
                if self._usages[container.layer].project == project:
                    return container
        return None


@contextmanager
def quota_events(store: Store) -> Iterator[QuotaEvents]:
    """Listen, for the time of the block, for what the kernel says about containers' limits.

    Args:
        store: The store.

    Raises:
        InvalidRequest: pyroute2 is missing.
        OperationNotSupported: The kernel does not limit this store's containers, or would not tell.
        DriverFailed: The kernel has no such messages, or refused.
    """
    driver = store.driver
    what = "tell when a container comes to its limit"
    if not sends_warnings(nearest_existing(driver.home)):
        raise OperationNotSupported(
            driver.name, what, f"the file system of {driver.home} sends no quota warnings; ext4 and XFS do"
        )
    if not driver.capabilities.limits_size:
        raise OperationNotSupported(driver.name, what, f"no limits are kept at {driver.home}")
    with ExitStack() as listening:
        try:
            with failing("listen for quota warnings"):
                warnings = listening.enter_context(quota_warnings())
        except ModuleNotFoundError as error:
            if error.name != "pyroute2":
                raise
            raise InvalidRequest("quota warnings", "need pyroute2; install hostspec[run]") from None
        yield QuotaEvents(store, warnings)
