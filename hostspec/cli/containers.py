"""Sub-commands about containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

from hostspec.cli.context import Context, idmap_of
from hostspec.cli.described import container_json, container_lines, created_lines
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.objects import delete_each, each_of, given_metadata
from hostspec.cli.render import print_json, progress_bar
from hostspec.cli.warnings import warnings_shown

if TYPE_CHECKING:  # listing containers needs none of what makes them
    from hostspec.store.configuration.policy import Strategy

__all__ = ["container", "containers", "create_container", "delete_container", "strategy_of"]


def create_container(context: Context, arguments: Arguments) -> None:
    """Make a container, whose image's files are shown under its ID map, or say how it would be made."""
    image = arguments.positionals[0] or None
    if arguments.given("explain"):
        from hostspec.cli.explaining import print_choice  # noqa: PLC0415 - only for this

        print_choice(context.store, image, idmap_of(arguments), strategy_of(arguments), arguments)
        return
    with warnings_shown(), progress_bar("mapping") as progress:
        made = context.store.create_container(
            image,
            container_id=arguments.one("id"),
            names=arguments.every("name"),
            idmap=idmap_of(arguments),
            metadata=given_metadata(arguments) or "",
            volatile=arguments.given("volatile"),
            strategy=strategy_of(arguments),
            squash=context.squash,
            progress=progress,
        )
    if arguments.given("json"):
        print_json(container_json(made))
    else:
        print("\n".join(created_lines(made.id, made.names)))


def strategy_of(arguments: Arguments) -> Strategy | None:
    """Return how the map is to be made, or ``None`` where that is left to the store's options.

    Raises:
        UsageError: There is no such way.
    """
    given = arguments.one("idmap-strategy")
    if given is None:
        return None
    from hostspec.store.configuration.policy import Strategy  # noqa: PLC0415 - listing containers does not need it

    for strategy in get_args(Strategy):
        if given == strategy:
            return cast(Strategy, strategy)
    raise UsageError("--idmap-strategy", f"{given!r} is none of {', '.join(get_args(Strategy))}")


def containers(context: Context, arguments: Arguments) -> int:
    """List containers."""
    found = context.store.containers()
    if arguments.given("json"):
        print_json([container_json(each) for each in found])
        return context.report_damage("container")
    for each in found:
        print(each.id if arguments.given("quiet") else "\n".join(container_lines(each)))
    return context.report_damage("container")


def container(context: Context, arguments: Arguments) -> int:
    """Describe containers."""
    found, code = each_of(arguments.positionals, context.store.container)
    if arguments.given("json"):
        print_json([container_json(each) for each in found])
        return code
    images = {each.id: each for each in context.store.images()}
    for each in found:
        lines = [f"ID: {each.id}"]
        lines += [f"Name: {name}" for name in each.names]
        if each.image:
            image = images.get(each.image)
            lines.append(f"Image: {each.image}")
            lines += [f"Image name: {name}" for name in (image.names if image else ())]
        lines.append(f"Size: {context.store.container_size(each.id)}")
        lines.append(f"Layer: {each.layer}")
        lines += [f"Data: {key}" for key in each.big_data]
        print("\n".join(lines))
    return code


def delete_container(context: Context, arguments: Arguments) -> int:
    """Delete containers and their layers."""

    def delete_one(reference: str) -> None:
        context.refuse_if_running(reference)
        context.store.delete_container(reference)

    return delete_each(arguments, delete_one)
