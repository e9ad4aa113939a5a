"""The ``bench`` sub-command."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import NamedTuple

from hostspec.cli.bench.material import write_tree
from hostspec.cli.bench.work import WORKS, measure
from hostspec.cli.context import Context
from hostspec.cli.demo.places import Place, places
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import print_json, table
from hostspec.errors import DriverNotInstalled, DriverUnavailable, HostspecError, OperationNotSupported
from hostspec.kernel.mounts import private_mount_namespace
from hostspec.plugins import installed_drivers, open_driver

__all__ = ["bench"]

DEFAULT_FILES = 5_000
DEFAULT_REPEAT = 5


class _Column(NamedTuple):
    """One driver on one file system."""

    driver: str
    filesystem: str
    samples: Mapping[str, Sequence[float]] = MappingProxyType({})
    """Empty where it was not measured."""
    reason: str = ""
    """Why it was not."""


def bench(context: Context, arguments: Arguments) -> int:
    """Measure a driver beside the others, and print milliseconds, medians."""
    wanted = _drivers(arguments.one("driver"))
    files = _number(arguments, "files", DEFAULT_FILES)
    repeat = _number(arguments, "repeat", DEFAULT_REPEAT)
    if os.geteuid() != 0:
        raise OperationNotSupported("bench", "measure drivers", "layers are mounted, which needs root")
    private_mount_namespace()
    parent = arguments.one("scratch") or "/var/tmp"  # noqa: S108 - on disk, as stores are
    os.makedirs(parent, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="hostspec-bench-", dir=parent)
    try:
        with ExitStack() as stack:
            tar = os.path.join(scratch, "tree.tar")
            write_tree(tar, files)
            columns = [
                _measure(driver, place, tar, context.options, repeat)
                for place in places(scratch, stack, privileged=True)
                for driver in wanted
            ]
    finally:
        shutil.rmtree(scratch)
    _report(columns, files, as_json=arguments.given("json"))
    first = [each for each in columns if each.driver == wanted[0]]
    return 0 if any(each.samples for each in first) else 1


def _drivers(name: str | None) -> Sequence[str]:
    """Return the drivers to measure, the wanted one first."""
    installed = [each.name for each in installed_drivers()]
    if name is None:
        return installed
    if name not in installed:
        raise DriverNotInstalled(name, f"is not installed (installed: {', '.join(installed) or 'none'})")
    return [name, *(each for each in installed if each != name)]


def _number(arguments: Arguments, flag: str, default: int) -> int:
    text = arguments.one(flag)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--{flag}", f"{text!r} is no number above 0")
    return int(text)


def _measure(driver: str, place: Place, tar: str, options: Sequence[str], repeat: int) -> _Column:
    if not place.directory:
        return _Column(driver, place.filesystem, reason=place.reason)
    if sys.stderr.isatty():
        print(f"{driver} on {place.filesystem} …", file=sys.stderr)
    home = os.path.join(place.directory, "bench", driver)
    try:
        with ExitStack() as stack:
            opened = open_driver(
                driver, home=home, run_root=f"{home}-run", options=list(_options_of(driver, options))
            )
            stack.callback(opened.cleanup)
            return _Column(driver, place.filesystem, measure(opened, tar, repeat))
    except DriverUnavailable as error:
        return _Column(driver, place.filesystem, reason=error.reason.replace(f"{place.directory}/", ""))
    except HostspecError as error:
        return _Column(driver, place.filesystem, reason=f"failed: {error}")
    except Exception as error:  # noqa: BLE001 - of a driver that is being written; the others are measured
        return _Column(driver, place.filesystem, reason=f"failed: {type(error).__name__}: {error}")


def _options_of(driver: str, options: Sequence[str]) -> Iterator[tuple[str, str]]:
    for option in options:
        key, _, value = option.partition("=")
        if key.startswith(f"{driver}."):
            yield key.removeprefix(f"{driver}."), value


def _report(columns: Sequence[_Column], files: int, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [{**column._asdict(), "samples": dict(column.samples), "files": files} for column in columns]
        )
        return
    print(f"Milliseconds, medians; a tree of {files:,} files.")
    for filesystem in dict.fromkeys(column.filesystem for column in columns):
        there = [column for column in columns if column.filesystem == filesystem]
        measured = [column for column in there if column.samples]
        print()
        if measured:
            titles = (f"ON {filesystem.upper()}", *(column.driver for column in measured))
            rows = [
                (work, *(_milliseconds(column.samples.get(work)) for column in measured)) for work in WORKS
            ]
            print(table(titles, rows), end="")
        for column in there:
            if column.reason:
                print(f"{column.driver}: {column.reason}")


def _milliseconds(samples: Sequence[float] | None) -> str:
    return f"{statistics.median(samples) * 1e3:.1f}" if samples else "-"
