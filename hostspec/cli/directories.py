"""Sub-commands about where the store keeps things, and who owns the way there."""

from __future__ import annotations

from collections.abc import Callable

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import each_of
from hostspec.cli.render import print_json
from hostspec.errors import InvalidRequest

__all__ = [
    "container_dir",
    "container_parent_owners",
    "container_run_dir",
    "image_dir",
    "image_run_dir",
    "layer_parent_owners",
]

Owners = tuple[str, list[int], list[int]]


def container_dir(context: Context, arguments: Arguments) -> None:
    """Print a container's directory for what survives."""
    print(context.store.data_directory(context.store.container(arguments.positionals[0])))


def image_dir(context: Context, arguments: Arguments) -> None:
    """Print an image's directory for what survives."""
    print(context.store.data_directory(context.store.image(arguments.positionals[0])))


def container_run_dir(context: Context, arguments: Arguments) -> None:
    """Print a container's directory for what need not survive a reboot."""
    print(context.store.run_directory(context.store.container(arguments.positionals[0])))


def image_run_dir(context: Context, arguments: Arguments) -> None:
    """Print an image's directory for what need not survive a reboot."""
    print(context.store.run_directory(context.store.image(arguments.positionals[0])))


def layer_parent_owners(context: Context, arguments: Arguments) -> int:
    """Print who owns the directories above layers' mounts and is outside their maps."""
    find = context.store.layer
    return _print_owners(context, arguments, lambda reference: find(reference).id, with_empty=False)


def container_parent_owners(context: Context, arguments: Arguments) -> int:
    """Print who owns the directories above containers' mounts and is outside their maps."""
    find = context.store.container
    return _print_owners(context, arguments, lambda reference: find(reference).id, with_empty=True)


def _print_owners(
    context: Context, arguments: Arguments, find: Callable[[str], str], *, with_empty: bool
) -> int:
    def owners_of(reference: str) -> Owners:
        identifier = find(reference)
        owners = context.store.parent_owners(identifier)
        if owners is None:
            raise InvalidRequest(identifier, "is not mounted, which it must be for this")
        return identifier, *owners

    found, code = each_of(arguments.positionals, owners_of)
    for identifier, uids, gids in found:
        if arguments.given("json"):
            # A document each, as the peer does.
            print_json({"ID": identifier, "UIDs": uids or None, "GIDs": gids or None})
            continue
        print(f"ID: {identifier}")
        for title, identifiers in (("UIDs", uids), ("GIDs", gids)):
            if identifiers or with_empty:
                print(f"{title}: [{' '.join(map(str, identifiers))}]")
    return code
