"""Sub-commands about the store as a whole, and about what this machine can do."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, NamedTuple

from hostspec import __version__
from hostspec.cli.containers import strategy_of
from hostspec.cli.context import Context, idmap_of
from hostspec.cli.explaining import choice_json, choice_lines, ways_table
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import print_error
from hostspec.cli.render import print_json, table
from hostspec.entry_points import Announcement
from hostspec.errors import HostspecError, StoreCorrupt
from hostspec.idmap import IdMap
from hostspec.plugins import installed_drivers, open_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostspec.store import Store

__all__ = ["drivers", "info", "shutdown", "status", "version", "wipe"]

EXAMPLE_MAP = IdMap.parse(["0:100000:65536"])


class Usability(NamedTuple):
    """Whether an installed driver can be used at the store's place."""

    driver: Announcement
    reason: str
    """Why not, or ``""``."""


def drivers(context: Context, arguments: Arguments) -> None:
    """List the installed drivers."""
    from hostspec.store.opening import default_roots  # noqa: PLC0415

    default_root, default_run_root = default_roots()
    root, run_root = context.root or default_root, context.run_root or default_run_root
    found = [Usability(driver, _reason_against(driver, root, run_root)) for driver in installed_drivers()]
    if arguments.given("json"):
        print_json(
            [
                {
                    "name": each.driver.name,
                    "distribution": each.driver.distribution,
                    "version": each.driver.version,
                    "usable": not each.reason,
                    "reason": each.reason,
                }
                for each in found
            ]
        )
        return
    rows = [
        (each.driver.name, f"{each.driver.distribution} {each.driver.version}", each.reason or "usable")
        for each in found
    ]
    sys.stdout.write(table(("DRIVER", "FROM", f"AT {root}"), rows))


def _reason_against(driver: Announcement, root: str, run_root: str) -> str:
    """Open the driver, which writes nothing, and return why that does not work, or ``""``."""
    try:
        opened = open_driver(
            driver.name,
            home=os.path.join(root, driver.name),
            run_root=os.path.join(run_root, driver.name),
        )
        _ = opened.capabilities
    except HostspecError as error:
        return getattr(error, "reason", None) or str(error)
    return ""


def info(context: Context, arguments: Arguments) -> None:
    """Describe the store, its driver, and the ways of ID mapping."""
    store = context.store
    idmap = idmap_of(arguments) or EXAMPLE_MAP
    choice = store.explain_idmap(None, idmap, strategy=strategy_of(arguments))
    counts = {
        "layers": _count(store.layers),
        "images": _count(store.images),
        "containers": _count(store.containers),
    }
    settings = _settings(store)
    if arguments.given("json"):
        print_json(
            {
                "root": store.root,
                "run-root": store.run_root,
                "driver": store.driver_name,
                **counts,
                "settings": [list(pair) for pair in settings],
                "idmap": str(idmap),
                **choice_json(choice),
                "status": [list(pair) for pair in store.status()],
            }
        )
        return
    print(f"Root: {store.root}\nRun Root: {store.run_root}\nDriver Name: {store.driver_name}")
    print(", ".join(f"{'?' if count is None else count} {kind}" for kind, count in counts.items()))
    for name, value in (*settings, *store.status()):
        print(f"{name}: {value}")
    print(f"\nA container with the map {idmap}:")
    print("\n".join(choice_lines(choice)))
    sys.stdout.write(ways_table(choice.ways))


def _count(look: Callable[[], Sequence[object]]) -> int | None:
    """Count records, unless their table cannot be read, which is told as damage."""
    try:
        return len(look())
    except StoreCorrupt:
        return None


def _settings(store: Store) -> list[tuple[str, str]]:
    """Say what was chosen for the store and where, and what is wrong with it."""
    configuration = store.configuration
    found = [("Configuration", each) for each in (configuration.all_files if configuration else ())]
    found += [("Unknown Key", str(each)) for each in (configuration.unknown if configuration else ())]
    found += [("Option", each) for each in store.options]
    found += [("Image Store", store.image_store)] if store.image_store else []
    found += [("Transient Store", "true")] if store.transient else []
    return found + [("Damage", str(each)) for each in store.damage()]


def status(context: Context, arguments: Arguments) -> None:
    """Print the driver's own facts, after the three that every driver has."""
    store = context.store
    pairs = [
        ("Root", store.root),
        ("Run Root", store.run_root),
        ("Driver Name", store.driver_name),
        ("Driver Options", f"[{' '.join(store.options)}]"),
        *store.status(),
    ]
    if arguments.given("json"):
        print_json([list(pair) for pair in pairs])
        return
    # Scripts written for the peer read it there.
    for name, value in pairs:
        print(f"{name}: {value}", file=sys.stderr)


def version(context: Context, arguments: Arguments) -> None:
    """Print versions."""
    del context
    facts = {"Version": __version__, "Python": platform.python_version(), "Kernel": platform.release()}
    for driver in installed_drivers():
        facts[f"Driver {driver.name}"] = f"{driver.distribution} {driver.version}"
    for dependency in ("pluggy", "xattr"):
        try:
            facts[dependency] = version_of(dependency)
        except PackageNotFoundError:
            facts[dependency] = "not installed"
    if arguments.given("json"):
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name}: {value}")


def wipe(context: Context, arguments: Arguments) -> None:
    """Delete everything in the store."""
    context.refuse_if_running()
    context.store.wipe()
    if arguments.given("json"):
        print_json("")  # as the peer does: an error's text would stand there


def shutdown(context: Context, arguments: Arguments) -> int:
    """Unmount everything; the exit code is 1 while somebody works in a mount."""
    still_mounted = context.store.shutdown(force=arguments.given("force"))
    for layer_id in still_mounted:
        print_error(f"layer {layer_id} is still mounted: somebody works in there; end that, and try again")
    if arguments.given("json"):
        # As the peer does, which says nothing of this kind; an error's text would stand there.
        print_json(list(still_mounted) or "")
    return 1 if still_mounted else 0
