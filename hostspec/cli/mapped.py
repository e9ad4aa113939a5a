"""Sub-commands about the copies that are made for ID maps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hostspec.cli.containers import strategy_of
from hostspec.cli.context import Context, idmap_of
from hostspec.cli.described import ranges_json
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import human_size, print_json, progress_bar, table
from hostspec.cli.warnings import warnings_shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostspec.store.copies.listing import MappedCopy

__all__ = ["mapped", "warm"]

TITLES = ("IMAGE", "LAYER", "MAP", "MADE BY", "OWN", "SHARED", "CREATED", "LAST USED", "CONTAINERS")
SHORT_ID = 12
TO_THE_SECOND = len("2026-11-23T20:04:11")
WHY_NOT = {
    "shift": "containers with this map are shifted when they are mounted",
    "none": "containers show the image's files as they are",
}


def mapped(context: Context, arguments: Arguments) -> None:
    """List the copies of images that were made for ID maps, or remove those that are not used."""
    age = arguments.one("remove-unused-for")
    if age is not None:
        _remove_unused(context, age, arguments)
        return
    if arguments.given("test"):
        raise UsageError("--test", "goes with --remove-unused-for")
    found = context.store.mapped_copies()
    if arguments.given("json"):
        print_json([_copy_json(each) for each in found])
    else:
        sys.stdout.write(table(TITLES, [_row(each) for each in found]))


def _remove_unused(context: Context, age: str, arguments: Arguments) -> None:
    from hostspec.store.configuration.policy import seconds_of  # noqa: PLC0415 - only for this

    unused_for = seconds_of(age, f"--remove-unused-for {age}")
    removed = context.store.remove_unused_copies(unused_for, dry_run=arguments.given("test"))
    if arguments.given("json"):
        print_json(list(removed))
    else:
        sys.stdout.writelines(f"{each}\n" for each in removed)


def warm(context: Context, arguments: Arguments) -> None:
    """Make the copy that containers of an image will stand on, where they need one."""
    image = arguments.positionals[0]
    with warnings_shown(), progress_bar("mapping") as progress:
        found = context.store.warm(
            image,
            idmap_of(arguments),
            strategy=strategy_of(arguments),
            squash=context.squash,
            progress=progress,
        )
    layer = found.layer.id if found.layer is not None else None
    if arguments.given("json"):
        print_json({"layer": layer, "strategy": found.way, "reason": found.reason})
    elif layer is None:
        print(f"nothing to make: {WHY_NOT[found.way]} ({found.reason})")
    else:
        print(layer)


def _copy_json(copy: MappedCopy) -> dict[str, object]:
    return {
        "layer": copy.layer.id,
        "image": copy.image.id,
        "uidmap": ranges_json(copy.layer.idmap.uids),
        "gidmap": ranges_json(copy.layer.idmap.gids),
        "strategy": copy.strategy,
        "squashed": copy.squashed,
        "exclusive-bytes": copy.usage.exclusive_bytes,
        "shared-bytes": copy.usage.shared_bytes,
        "created": copy.layer.created,
        "last-used": copy.last_used,
        "containers": copy.containers,
    }


def _row(copy: MappedCopy) -> Sequence[str]:
    return (
        copy.image.names[0] if copy.image.names else copy.image.id[:SHORT_ID],
        copy.layer.id[:SHORT_ID],
        str(copy.layer.idmap),
        f"{copy.strategy or '?'}{', squashed' if copy.squashed else ''}",
        human_size(copy.usage.exclusive_bytes),
        human_size(copy.usage.shared_bytes),
        copy.layer.created[:TO_THE_SECOND],
        (copy.last_used or "?")[:TO_THE_SECOND],
        str(len(copy.containers)),
    )
