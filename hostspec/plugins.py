"""Discovery: which drivers are installed, and how one is opened.

A driver is announced by its distribution in the entry-point group ``hostspec.drivers``:
the name is the driver's, the value a factory. Nothing else in hostspec knows a driver's name.
Only the driver that is opened is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from hostspec.driver import GraphDriver
from hostspec.entry_points import Announcement, announced
from hostspec.errors import DriverBroken, DriverNotInstalled, HostspecError
from hostspec.hookspecs import PROJECT
from hostspec.observers import Observer
from hostspec.observers.selection import chosen_observers

__all__ = ["ENTRY_POINT_GROUP", "DriverFactory", "installed_drivers", "open_driver"]

ENTRY_POINT_GROUP = f"{PROJECT}.drivers"
"""The entry-point group in which distributions announce drivers."""


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


def installed_drivers() -> Sequence[Announcement]:
    """Return every installed driver, sorted by name, without importing any."""
    return sorted(announced(ENTRY_POINT_GROUP))


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
        observers: Told of every operation, beside those that the environment chooses.

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
    return GraphDriver(
        name,
        implementation,
        home=home,
        run_root=run_root,
        masked=masked,
        observers=(*observers, *chosen_observers()),
    )


def _find(name: str) -> Announcement:
    found = [each for each in announced(ENTRY_POINT_GROUP) if each.name == name]
    if not found:
        known = ", ".join(each.name for each in installed_drivers()) or "none"
        raise DriverNotInstalled(
            name, f"no installed distribution provides it (installed: {known}); pip install one that does"
        )
    if len(found) > 1:
        names = " and ".join(each.distribution for each in found)
        raise DriverBroken(name, f"is provided by {names}; uninstall all but one")
    return found[0]


def _load(driver: Announcement) -> DriverFactory:
    try:
        target = driver.load()
    except Exception as error:
        raise DriverBroken(
            driver.name,
            f"{driver.value} of {driver.distribution} {driver.version} does not import: "
            f"{type(error).__name__}: {error}",
        ) from error
    if not callable(target):
        raise DriverBroken(driver.name, f"{driver.value} is not callable")
    return cast(Callable[..., object], target)
