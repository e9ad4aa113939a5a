"""Sub-commands about images."""

from __future__ import annotations

import re
import sys

from hostspec.cli.context import Context
from hostspec.cli.described import created_lines, image_json, image_lines
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import each_of, given_metadata
from hostspec.cli.render import human_size, print_json, progress_bar, table
from hostspec.errors import InvalidRequest

__all__ = ["create_image", "delete_image", "image", "images", "images_by_digest", "import_image", "mapped"]


def import_image(context: Context, arguments: Arguments) -> None:
    """Make an image of an OCI layout, a root directory or a tar."""
    from hostspec.images import import_image as run  # noqa: PLC0415 - imports what only importing needs

    source = arguments.positionals[0]
    with progress_bar(source) as progress:
        made = run(
            context.store,
            source,
            names=arguments.every("name"),
            further_layers=arguments.every("layer"),
            squash=context.squash,
            progress=progress,
        )
    if arguments.given("json"):
        print_json(image_json(made))
    else:
        print("\n".join(created_lines(made.id, made.names)))


def images(context: Context, arguments: Arguments) -> int:
    """List images."""
    found = context.store.images()
    if arguments.given("json"):
        print_json([image_json(each) for each in found])
        return context.report_damage("image")
    for each in found:
        print(each.id if arguments.given("quiet") else "\n".join(image_lines(each)))
    return context.report_damage("image")


def images_by_digest(context: Context, arguments: Arguments) -> int:
    """List the images that have a digest."""
    digest = arguments.positionals[0]
    if not re.fullmatch(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]{32,}", digest):
        raise InvalidRequest("digest", f"{digest!r} is not of the form ALGORITHM:HEX")
    found = context.store.images_by_digest(digest)
    if arguments.given("json"):
        print_json([image_json(each) for each in found])
        return context.report_damage("image")
    for each in found:
        print(each.id if arguments.given("quiet") else "\n".join(image_lines(each)))
    return context.report_damage("image")


def image(context: Context, arguments: Arguments) -> int:
    """Describe images."""
    found, code = each_of(arguments.positionals, context.store.image)
    if arguments.given("json"):
        print_json([image_json(each) for each in found])
        return code
    for each in found:
        lines = [f"ID: {each.id}"]
        lines += [f"Name: {name}" for name in each.names]
        lines.append(f"Top Layer: {each.layer or ''}")
        lines += [f"Top Layer: {layer}" for layer in each.mapped_layers]
        lines += [f"Digest: {digest}" for digest in each.digests]
        lines += [f"Data: {key}" for key in each.big_data]
        lines.append(f"Size: {context.store.image_size(each.id)}")
        lines += ["Read Only: true"] if each.read_only else []
        print("\n".join(lines))
    return code


def create_image(context: Context, arguments: Arguments) -> None:
    """Make an image of a layer that exists."""
    made = context.store.create_image(
        arguments.positional(0) or None,
        image_id=arguments.one("id"),
        names=arguments.every("name"),
        digest=arguments.one("digest"),
        metadata=given_metadata(arguments) or "",
    )
    if arguments.given("json"):
        print_json(image_json(made))
    else:
        print("\n".join(created_lines(made.id, made.names)))


def delete_image(context: Context, arguments: Arguments) -> None:
    """Delete an image, and say which layers went with it."""
    store = context.store
    found = store.image(arguments.positionals[0])
    layers = store.delete_image(found.id, dry_run=arguments.given("test"))
    if arguments.given("json"):
        print_json(list(layers))
    else:
        for layer in layers:
            print(f"{found.id}: {layer}", file=sys.stderr)


def mapped(context: Context, arguments: Arguments) -> None:
    """List the copies of images that were made for ID maps."""
    found = context.store.mapped_copies()
    if arguments.given("json"):
        print_json(
            [
                {
                    "layer": each.layer.id,
                    "image": each.image.id,
                    "uidmap": [range_._asdict() for range_ in each.layer.idmap.uids],
                    "gidmap": [range_._asdict() for range_ in each.layer.idmap.gids],
                    "strategy": each.strategy,
                    "exclusive-bytes": each.usage.exclusive_bytes,
                    "shared-bytes": each.usage.shared_bytes,
                    "created": each.layer.created,
                    "last-used": each.last_used,
                    "containers": each.containers,
                }
                for each in found
            ]
        )
        return
    rows = [
        (
            each.image.names[0] if each.image.names else each.image.id[:12],
            each.layer.id[:12],
            str(each.layer.idmap),
            each.strategy or "?",
            human_size(each.usage.exclusive_bytes),
            human_size(each.usage.shared_bytes),
            each.layer.created[:19],
            (each.last_used or "?")[:19],
            str(len(each.containers)),
        )
        for each in found
    ]
    titles = ("IMAGE", "LAYER", "MAP", "MADE BY", "OWN", "SHARED", "CREATED", "LAST USED", "CONTAINERS")
    sys.stdout.write(table(titles, rows))
