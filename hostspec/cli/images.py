"""Sub-commands about images."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from hostspec.cli.context import Context
from hostspec.cli.described import created_lines, image_json, image_lines
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import each_of, given_metadata, print_error
from hostspec.cli.render import print_json, progress_bar
from hostspec.errors import HostspecError, InvalidRequest
from hostspec.store import Image

__all__ = ["create_image", "delete_image", "image", "images", "images_by_digest", "import_image"]


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
    context.tell_of_depth(made.layer, anywhere=True)


def images(context: Context, arguments: Arguments) -> int:
    """List images."""
    return _list(context, arguments, context.store.images())


def images_by_digest(context: Context, arguments: Arguments) -> int:
    """List the images that have a digest."""
    digest = arguments.positionals[0]
    if not re.fullmatch(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]{32,}", digest):
        raise InvalidRequest("digest", f"{digest!r} is not of the form ALGORITHM:HEX")
    return _list(context, arguments, context.store.images_by_digest(digest))


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
    context.tell_of_depth(*(each.layer for each in found))
    return code


def create_image(context: Context, arguments: Arguments) -> None:
    """Make an image of a layer that exists."""
    made = context.store.create_image(
        arguments.positional(0) or None,
        image_id=arguments.one("id"),
        names=arguments.every("name"),
        digest=arguments.one("digest") or None,
        metadata=given_metadata(arguments) or "",
    )
    if arguments.given("json"):
        print_json(image_json(made))
    else:
        print("\n".join(created_lines(made.id, made.names)))


def delete_image(context: Context, arguments: Arguments) -> int:
    """Delete images, and say which layers went with each."""
    removed: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for reference in arguments.positionals:
        try:
            layers = context.store.delete_image(reference, dry_run=arguments.given("test"))
            removed[reference] = list(layers)
        except HostspecError as error:
            errors[reference] = str(error)
    if arguments.given("json"):
        answers = {each: {"deleted-layers": layers} if layers else {} for each, layers in removed.items()}
        failures = {each: {"error": message} for each, message in errors.items()}
        print_json(dict(sorted({**answers, **failures}.items())))
        return 1 if errors else 0
    for reference, layers in removed.items():
        for layer in layers:
            # As the peer does; scripts written for it look there.
            print(f"{reference}: {layer}", file=sys.stderr)
    for reference, message in errors.items():
        print_error(f"{reference}: {message}")
    return 1 if errors else 0


def _list(context: Context, arguments: Arguments, found: Sequence[Image]) -> int:
    """Print images, as the flags say."""
    if arguments.given("json"):
        print_json([image_json(each) for each in found])
        return context.report_damage("image")
    for each in found:
        print(each.id if arguments.given("quiet") else "\n".join(image_lines(each)))
    return context.report_damage("image")
