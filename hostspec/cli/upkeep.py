"""Sub-commands that look after the whole store: damage, leftovers, duplicates."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import print_json
from hostspec.errors import HostspecError, LayerInUse, OperationNotSupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostspec.store.upkeep.findings import CheckReport

__all__ = ["check", "collect_garbage", "deduplicate", "seconds"]

KINDS = (
    ("Layers", "layer", False),
    ("ROLayers", "layer", True),
    ("Images", "image", False),
    ("ROImages", "image", True),
    ("Containers", "container", False),
)
"""Parts of a report: their names in JSON, and what they are about."""

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:h|ms|m|s|us|µs|μs|ns))+")
PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)")
DEFAULT_AGE = "24h"
METHODS = ("crc", "size", "sha256")


def check(context: Context, arguments: Arguments) -> int:
    """Report damage, and repair it if told to; the exit code is 1 while there is any."""
    force = arguments.given("force")
    max_age = seconds(arguments.one("max") or DEFAULT_AGE)
    store = context.store
    report = store.check(quick=arguments.given("quick"), max_age=max_age)
    _print_report(report, as_json=arguments.given("json"))
    for damage in report.damage:
        print(f"hostspec: {damage}", file=sys.stderr)
    context.tell_of_depth(*(each.layer for each in store.images()))
    if not (force or arguments.given("repair")):
        return _sum_up(report, KINDS)
    errors = store.repair(report, containers=force)
    for error in errors:
        print(f"hostspec: {_told(error)}", file=sys.stderr)
    left = [part for part in KINDS if part[2] or (part[1] == "container" and not force)]
    return _sum_up(report, left) or (1 if errors else 0)


def _told(error: HostspecError) -> str:
    """Say why something could not be removed, a container's layer in the words that scripts look for."""
    if isinstance(error, LayerInUse) and error.how.endswith("container"):
        return (
            f"layer {error.name} used by container {', '.join(error.users)}: layer is in use by a container"
        )
    return str(error)


def _print_report(report: CheckReport, *, as_json: bool) -> None:
    parts = {name: report.of(kind, read_only=read_only) for name, kind, read_only in KINDS}
    if as_json:
        print_json(
            {
                name: {identifier: [str(each) for each in found] for identifier, found in part.items()}
                for name, part in parts.items()
            }
        )
        return
    for name, kind, read_only in KINDS:
        for identifier, found in parts[name].items():
            print(f"{'read-only ' if read_only else ''}{kind} {identifier}:")
            for each in found:
                print(f" {each}")


def _sum_up(report: CheckReport, parts: Sequence[tuple[str, str, bool]]) -> int:
    """Say how many objects are damaged, and return the exit code."""
    counts = [
        (len(report.of(kind, read_only=read_only)), f"{'read-only ' if read_only else ''}{kind} errors")
        for _, kind, read_only in parts
    ]
    if any(count for count, _ in counts):
        text = ", ".join(f"{count} {what}" for count, what in counts)
        print(f"hostspec: {text}", file=sys.stderr)
        return 1
    return 1 if report.damage else 0


def collect_garbage(context: Context, arguments: Arguments) -> None:
    """Remove what no record names."""
    del arguments
    context.store.collect_garbage()


def deduplicate(context: Context, arguments: Arguments) -> None:
    """Let equal files share their blocks; where they cannot, nothing is saved, as with the peer."""
    method = arguments.one("hash-method") or METHODS[0]
    if method not in METHODS:
        raise UsageError("--hash-method", f"{method!r} is none of {', '.join(METHODS)}")
    try:
        saved = context.store.deduplicate(method)
    except OperationNotSupported as reason:
        saved = 0
        if arguments.given("debug"):
            print(f"hostspec: {reason}", file=sys.stderr)
    if arguments.given("json"):
        print_json({"Deduped": saved})
    else:
        print(f"Deduplicated {saved} bytes")


def seconds(text: str) -> float:
    """Return a duration as Go writes it (``1h30m``, ``1.5h``, ``0``) in seconds.

    Raises:
        UsageError: It is none.
    """
    if text.lstrip("+-") == "0":
        return 0.0
    if not DURATION.fullmatch(text):
        raise UsageError("--max", f"{text!r} is no duration; write it as 24h, 1h30m or 0")
    total = sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))
    return -total if text.startswith("-") else total
