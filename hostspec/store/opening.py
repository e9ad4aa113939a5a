"""Opening a store: where it is, whose it is, and which driver it gets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hostspec.errors import DriverUnavailable, InvalidRequest
from hostspec.store.graph_root import GraphRoot, Sync
from hostspec.store.layout import Layout, drivers_with_records
from hostspec.store.store import Store

if TYPE_CHECKING:
    from hostspec.observers import Observer

__all__ = ["best_driver", "default_roots", "driver_options", "open_store"]

_SYSTEM_ROOT = "/var/lib/containers/storage"
_SYSTEM_RUN_ROOT = "/run/containers/storage"


def open_store(
    *,
    root: str | None = None,
    run_root: str | None = None,
    driver: str | None = None,
    options: Sequence[str] = (),
    read_only: bool = False,
    sync: Sync = "none",
    observers: Sequence[Observer] = (),
) -> Store:
    """Open a store, which need not exist; nothing is made on disk before something is put in.

    Args:
        root: The graph root; by default the system's, or the user's own where the process is not root.
        run_root: The directory for what need not survive a reboot; by default as ``root``.
        driver: The driver's name; by default the one that the store was made by, or for a new store the
            best that can be used there.
        options: The driver's options, ``KEY=VALUE``, with or without ``DRIVER.`` before the key.
        read_only: Refuse everything that writes, and leave what dead processes left as it is.
        sync: ``"filesystem"`` to sync the file system between a layer's data and its record, so that
            a layer survives a power loss; ``"none"`` as the Go library does by default.
        observers: Told of every operation of the driver.

    Returns:
        The store, a context manager.

    Raises:
        InvalidRequest: The store was made by another driver, or an option is not this driver's.
        DriverUnavailable: The store is new, and no driver can be used there.
    """
    default_root, default_run_root = default_roots()
    graph = os.path.abspath(root or default_root)
    run = os.path.abspath(run_root or default_run_root)
    name = _driver_of(graph, run, driver)
    layout = Layout(graph, run, name)
    return Store(
        GraphRoot(
            layout,
            options=driver_options(name, options),
            read_only=read_only,
            sync=sync,
            observers=observers,
        )
    )


def default_roots() -> tuple[str, str]:
    """Return the graph root and the run root that are used where none is named."""
    if os.geteuid() == 0:
        return _SYSTEM_ROOT, _SYSTEM_RUN_ROOT
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/storage-run-{os.geteuid()}"  # noqa: S108 - as the Go library
    return os.path.join(data, "containers", "storage"), os.path.join(run, "containers")


def driver_options(driver: str, options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return options without the driver's prefix.

    Raises:
        InvalidRequest: An option is malformed, or another driver's.
    """
    return tuple(_option(driver, each) for each in options)


def best_driver(graph: str, run: str) -> str:
    """Return the best driver that can be used for a new store.

    One that can shift ID maps comes before one that cannot, and one whose layers are differences before one
    that copies whole trees.

    Raises:
        DriverUnavailable: None can be used; says why for each.
    """
    from hostspec.errors import DriverNotInstalled  # noqa: PLC0415 - most stores know their driver
    from hostspec.idmap import IdMap  # noqa: PLC0415
    from hostspec.plugins import installed_drivers, open_driver  # noqa: PLC0415

    ranked: list[tuple[bool, bool, str]] = []
    reasons: list[str] = []
    for each in installed_drivers():
        home, run_root = os.path.join(graph, each.name), os.path.join(run, each.name)
        try:
            opened = open_driver(each.name, home=home, run_root=run_root)
            whole = opened.capabilities.layers_are_whole
            shifts = opened.supports_shifting(IdMap([(0, 100_000, 65_536)], [(0, 100_000, 65_536)])).possible
        except DriverUnavailable as error:
            reasons.append(str(error))
        else:
            ranked.append((whole, not shifts, each.name))
    if not ranked:
        why = "; ".join(reasons) or "no distribution that provides one is installed"
        raise DriverNotInstalled("any", f"no driver can be used at {graph}: {why}")
    return min(ranked)[2]


def _driver_of(graph: str, run: str, wanted: str | None) -> str:
    if wanted is not None and ("/" in wanted or wanted in {"", ".", ".."}):
        raise InvalidRequest(f"driver {wanted!r}", "is no driver's name")
    makers = drivers_with_records(graph)
    if wanted is not None and (wanted in makers or not makers):
        return wanted
    if wanted is not None:
        maker, path = next(iter(makers.items()))
        reason = f"the store was made by the driver {maker!r}, as {path} shows; open it with that one"
        raise InvalidRequest(f"driver {wanted!r}", f"{reason}, or choose another root")
    if len(makers) > 1:
        reason = f"has records of several drivers ({', '.join(makers.values())}); say which to open"
        raise InvalidRequest(graph, reason)
    return next(iter(makers), None) or best_driver(graph, run)


def _option(driver: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    prefix, dot, name = key.rpartition(".")
    if not equals or not (name if dot else key):
        raise InvalidRequest(f"storage option {text!r}", "must be KEY=VALUE")
    if dot and prefix not in {"", driver}:
        raise InvalidRequest(f"storage option {text!r}", f"is not one of the driver {driver!r}")
    return name if dot else key, value
