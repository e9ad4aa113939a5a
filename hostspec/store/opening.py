"""Opening a store: where it is, whose it is, and which driver it gets."""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hostspec.errors import DriverUnavailable, InvalidRequest
from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import POLICY_PREFIX, Policy, parse_policy
from hostspec.store.format.layout import DRIVER_SYNONYMS, Layout, drivers_with_records
from hostspec.store.graph_root import GraphRoot, Sync
from hostspec.store.store import Store

if TYPE_CHECKING:
    from hostspec.observers import Observer
    from hostspec.store.configuration.keys import Configuration

__all__ = ["best_driver", "default_roots", "open_store", "split_options"]

_IMAGE_STORES = frozenset({"imagestore", "additionalimagestore"})
_SYNC = "sync"


def open_store(  # noqa: PLR0913 - keywords that few callers need
    *,
    root: str | None = None,
    run_root: str | None = None,
    driver: str | None = None,
    options: Sequence[str] = (),
    image_store: str | None = None,
    transient: bool | None = None,
    read_only: bool = False,
    sync: Sync | None = None,
    observers: "Sequence[Observer]" = (),
) -> Store:
    """Open a store, which need not exist; nothing is made on disk before something is put in.

    Where neither root, run root, driver nor options are given, the configuration files and the environment
    say what they are; where only one of the roots is given, they say what the other is.

    Args:
        root: The graph root.
        run_root: The directory for what need not survive a reboot.
        driver: The driver's name; by default the one that the store was made by, or for a new store the
            best that can be used there.
        options: Options, ``KEY=VALUE``, with or without ``DRIVER.`` before the key: the driver's, and
            ``imagestore`` (graph roots of additional stores) and ``sync``, which hold for any driver;
            and the store's own, ``hostspec.KEY=VALUE``, see
            :class:`hostspec.store.configuration.policy.Policy`.
        image_store: A graph root of their own for images and their layers.
        transient: Whether containers need not survive a reboot; their records lie in the run root.
        read_only: Refuse everything that writes, and leave what dead processes left as it is.
        sync: ``"filesystem"`` to sync the file system between a layer's data and its record, so that
            a layer survives a power loss; ``"none"`` as the Go library does by default.
        observers: Told of every operation of the driver.

    Returns:
        The store, a context manager.

    Raises:
        InvalidRequest: The store was made by another driver, an option is not this driver's, or a
            configuration file cannot be understood.
        DriverUnavailable: The store is new, and no driver can be used there.
    """
    named = bool(root or run_root or driver or options)
    configuration = None if root and run_root else _configuration()
    settings = None if named else configuration
    graph = os.path.abspath(root or (configuration.root if configuration else ""))
    run = os.path.abspath(run_root or (configuration.run_root if configuration else ""))
    images = _image_root(graph, image_store or (settings.image_store if settings else None))
    name = _driver_of(
        [graph, *([images] if images else [])],
        run,
        driver or (settings.driver if settings else None),
        settings.driver_priority if settings else (),
    )
    split = split_options(name, options if settings is None else settings.options_for(name))
    if transient is None:
        transient = settings is not None and settings.transient
    return Store(
        GraphRoot(
            Layout(graph, run, name, images, transient),
            options=split.driver,
            read_only=read_only,
            sync=sync or split.sync,
            additional=[each for each in split.image_stores if each not in {graph, images}],
            idmap=settings.idmap if settings else IdMap(),
            ignore_volatile=settings is not None and settings.disable_volatile,
            policy=split.policy,
            option_sources=settings.sources_for(name) if settings else {},
            observers=observers,
        ),
        configuration=settings,
    )


def default_roots() -> tuple[str, str]:
    """Return the graph root and the run root that are used where none is named.

    Raises:
        InvalidRequest: A configuration file cannot be understood.
    """
    configuration = _configuration()
    return configuration.root, configuration.run_root


class SplitOptions(NamedTuple):
    """Options by who obeys them."""

    driver: tuple[tuple[str, str], ...]
    """The driver's, names without its prefix."""
    image_stores: tuple[str, ...]
    """``imagestore`` and ``additionalimagestore``: absolute paths of additional stores' graph roots."""
    sync: Sync
    """``sync``: what makes layer data survive a power loss."""
    policy: Policy
    """The store's own."""


def split_options(driver: str, options: Sequence[str]) -> SplitOptions:
    """Read options, and divide them into those of the driver and those that hold for every driver.

    Raises:
        InvalidRequest: An option is malformed or another driver's, or an additional store is no directory.
    """
    given = [_option(driver, text) for text in options if not _is_own(text)]
    own = [_option(POLICY_PREFIX, text) for text in options if _is_own(text)]
    stores = [
        _additional_store(f"{driver}.{key}", path)
        for key, value in given
        if key in _IMAGE_STORES
        for path in filter(None, value.split(","))
    ]
    sync: Sync = "none"
    for key, value in given:
        if key == _SYNC:
            if value not in {"", "none", "filesystem"}:
                raise InvalidRequest(f"option {driver}.{key}={value}", "must be none or filesystem")
            sync = "filesystem" if value == "filesystem" else "none"
    return SplitOptions(
        tuple(each for each in given if each[0] not in {*_IMAGE_STORES, _SYNC}),
        tuple(dict.fromkeys(stores)),
        sync,
        parse_policy(own),
    )


def best_driver(graph: str, run: str, priority: Sequence[str] = ()) -> str:
    """Return the best driver that can be used for a new store.

    One that the other clients of such stores have too comes first, then one whose layers are differences
    before one that copies whole trees, then one that shifts ID maps as every client does.

    Args:
        graph: Absolute path of the graph root.
        run: Absolute path of the run root.
        priority: Drivers that come before all others, best first.

    Raises:
        DriverUnavailable: None can be used; says why for each.
    """
    from hostspec.errors import DriverNotInstalled  # noqa: PLC0415 - most stores know their driver
    from hostspec.idmap import IdMap  # noqa: PLC0415
    from hostspec.plugins import installed_drivers, open_driver  # noqa: PLC0415
    from hostspec.store.configuration.own_settings import FORMAT_TABLES  # noqa: PLC0415

    ranked: list[tuple[int, bool, bool, bool, str]] = []
    reasons: list[str] = []
    for each in installed_drivers():
        home, run_root = os.path.join(graph, each.name), os.path.join(run, each.name)
        try:
            opened = open_driver(each.name, home=home, run_root=run_root)
            whole = opened.capabilities.layers_are_whole
            shifting = opened.supports_shifting(IdMap([(0, 100_000, 65_536)], [(0, 100_000, 65_536)]))
            shifts = shifting.possible and shifting.shared_with_go
        except DriverUnavailable as error:
            reasons.append(str(error))
        else:
            wanted = priority.index(each.name) if each.name in priority else len(priority)
            ours_alone = each.name not in FORMAT_TABLES
            ranked.append((wanted, ours_alone, whole, not shifts, each.name))
    if not ranked:
        why = "; ".join(reasons) or "no distribution that provides one is installed"
        raise DriverNotInstalled("any", f"no driver can be used at {graph}: {why}")
    return min(ranked)[-1]


def _configuration() -> "Configuration":
    from hostspec.store.configuration.default_store import load_configuration  # noqa: PLC0415 - who names both needs none

    return load_configuration()


def _image_root(graph: str, image_store: str | None) -> str:
    if not image_store:
        return ""
    path = os.path.abspath(image_store)
    if path == graph:
        raise InvalidRequest(f"image store {path}", "is the graph root; leave it out, or choose another")
    return path


def _additional_store(option: str, path: str) -> str:
    clean = os.path.normpath(path)
    if not os.path.isabs(clean) or not os.path.isdir(clean):
        raise InvalidRequest(
            f"option {option}={path}", "must be the absolute path of an additional store's graph root"
        )
    return clean


def _driver_of(roots: Sequence[str], run: str, wanted: str | None, priority: Sequence[str]) -> str:
    wanted = DRIVER_SYNONYMS.get(wanted, wanted) if wanted is not None else None
    if wanted is not None and ("/" in wanted or wanted in {"", ".", ".."}):
        raise InvalidRequest(f"driver {wanted!r}", "is no driver's name")
    makers: dict[str, str] = {}
    for root in roots:
        makers = {**drivers_with_records(root), **makers}
    if wanted is not None and (wanted in makers or not makers):
        return wanted
    if wanted is not None:
        maker, path = next(iter(makers.items()))
        reason = f"the store was made by the driver {maker!r}, as {path} shows; open it with that one"
        raise InvalidRequest(f"driver {wanted!r}", f"{reason}, or choose another root")
    if len(makers) > 1:
        reason = f"has records of several drivers ({', '.join(makers.values())}); say which to open"
        raise InvalidRequest(roots[0], reason)
    return next(iter(makers), None) or best_driver(roots[0], run, priority)


def _is_own(text: str) -> bool:
    return text.strip().startswith(f"{POLICY_PREFIX}.")


def _option(driver: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    prefix, dot, name = key.strip().rpartition(".")
    prefix = DRIVER_SYNONYMS.get(prefix, prefix)
    if not equals or not name:
        raise InvalidRequest(f"storage option {text!r}", "must be KEY=VALUE")
    if dot and prefix not in {"", driver}:
        raise InvalidRequest(f"storage option {text!r}", f"is not one of the driver {driver!r}")
    return name, value
