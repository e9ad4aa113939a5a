"""Discovery: which drivers are installed, and how one is opened.

A driver is announced by its distribution in the entry-point group ``hostspec.drivers``:
the name is the driver's, the value a factory. Nothing else in hostspec knows a driver's name.
Only the driver that is opened is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from hostspec.driver import GraphDriver
from hostspec.errors import DriverBroken, DriverNotInstalled, HostspecError
from hostspec.hookspecs import PROJECT
from hostspec.observers import Observer

__all__ = ["ENTRY_POINT_GROUP", "DriverFactory", "InstalledDriver", "installed_drivers", "open_driver"]

ENTRY_POINT_GROUP = f"{PROJECT}.drivers"
"""The entry-point group in which distributions announce drivers."""


class InstalledDriver(NamedTuple):
    """A driver that some installed distribution announces."""

    name: str
    """The driver's name."""
    value: str
    """Where its factory is: ``package.module:attribute``."""
    distribution: str
    """Name of the distribution that announces it."""
    version: str
    """Version of that distribution."""


class DriverFactory(Protocol):
    """What an entry point names: makes a driver object for one home.

    It writes nothing to disk, neither then nor before the first ``create``, and raises
    :class:`hostspec.errors.DriverUnavailable` with the reason where the driver cannot work.
    """

    def __call__(
        self,
        home: str,
        run_root: str,
        options: tuple[tuple[str, str], ...],
        read_only_homes: tuple[str, ...],
    ) -> object:
        """Return an object whose methods implement the hooks.

        Args:
            home: Directory for the driver's layers; need not exist.
            run_root: Directory for what need not survive a reboot; need not exist.
            options: Names without the driver's prefix, and values, in the user's order.
            read_only_homes: Homes of the same driver whose layers may be parents and templates.
        """


def installed_drivers() -> Sequence[InstalledDriver]:
    """Return every installed driver, sorted by name, without importing any."""
    return sorted(_announced())


def open_driver(
    name: str,
    *,
    home: str,
    run_root: str,
    options: Sequence[tuple[str, str]] = (),
    read_only_homes: Sequence[str] = (),
    masked: frozenset[str] = frozenset(),
    observers: Sequence[Observer] = (),
) -> GraphDriver:
    """Open a driver at ``home``.

    Args:
        name: The driver's name, as its entry point has it.
        home: Absolute path of the directory for its layers.
        run_root: Absolute path of the directory for what need not survive a reboot.
        options: Storage options for this driver, names without its prefix.
        read_only_homes: Homes in additional stores.
        masked: Hooks to treat as not implemented, so that the fallbacks do the work.
        observers: Told of every operation.

    Raises:
        DriverNotInstalled: No distribution announces such a driver.
        DriverBroken: It does not import, or does not fulfil the contract.
        DriverUnavailable: It cannot be used here; the reason is in the error.
        InvalidRequest: It does not know an option, or not that value.
    """
    factory = _load(_find(name))
    try:
        implementation = factory(home, run_root, tuple(options), tuple(read_only_homes))
    except HostspecError:
        raise
    except Exception as error:
        raise DriverBroken(name, f"its factory failed: {type(error).__name__}: {error}") from error
    return GraphDriver(name, implementation, home=home, run_root=run_root, masked=masked, observers=observers)


def _find(name: str) -> InstalledDriver:
    found = [each for each in _announced() if each.name == name]
    if not found:
        known = ", ".join(each.name for each in installed_drivers()) or "none"
        raise DriverNotInstalled(
            name, f"no installed distribution provides it (installed: {known}); pip install one that does"
        )
    if len(found) > 1:
        names = " and ".join(each.distribution for each in found)
        raise DriverBroken(name, f"is provided by {names}; uninstall all but one")
    return found[0]


def _load(driver: InstalledDriver) -> DriverFactory:
    module_name, _, attribute = driver.value.partition(":")
    try:
        target: object = import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except Exception as error:
        raise DriverBroken(
            driver.name,
            f"{driver.value} of {driver.distribution} {driver.version} does not import: "
            f"{type(error).__name__}: {error}",
        ) from error
    if not callable(target):
        raise DriverBroken(driver.name, f"{driver.value} is not callable")
    return cast(Callable[..., object], target)


def _announced() -> Iterator[InstalledDriver]:
    """Read the entry points of this group.

    ``importlib.metadata`` gives the same, but importing it costs more than half of what a whole
    ``hostspec layers`` may take, so the ``entry_points.txt`` files are read directly.
    """
    seen: set[str] = set()
    for directory in dict.fromkeys(sys.path):
        try:
            names = os.listdir(directory or os.curdir)
        except OSError:
            continue
        for name in sorted(names):
            stem, dot, kind = name.rpartition(".")
            if not dot or kind not in {"dist-info", "egg-info"}:
                continue
            distribution, _, version = stem.partition("-")
            distribution = distribution.replace("_", "-")
            # As for imports, the first of several copies on the path is the one that counts.
            if distribution in seen:
                continue
            seen.add(distribution)
            for key, value in _entry_points(os.path.join(directory, name, "entry_points.txt")):
                yield InstalledDriver(key, value, distribution, version)


def _entry_points(path: str) -> Iterator[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    inside = False
    for line in lines:
        text = line.strip()
        if text.startswith("["):
            inside = text == f"[{ENTRY_POINT_GROUP}]"
        elif inside and text and not text.startswith(("#", ";")):
            name, _, value = text.partition("=")
            yield name.strip(), value.partition("[")[0].strip()
