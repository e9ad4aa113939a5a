"""Sub-commands about layers."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from hostspec.cli.context import Context, idmap_of
from hostspec.cli.described import created_lines, idmap_lines, layer_json
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import delete_each, each_of, input_stream
from hostspec.cli.render import print_json, progress_bar
from hostspec.idmap import IdMap
from hostspec.store import Layer, Store

__all__ = ["create_layer", "delete_layer", "import_layer", "layer", "layers"]


def layers(context: Context, arguments: Arguments) -> int:
    """List layers, each with the images and containers that stand on it."""
    found = context.store.layers()
    if arguments.given("json"):
        print_json([layer_json(each) for each in found])
    elif arguments.given("tree"):
        from hostspec.cli.tree import tree_lines  # noqa: PLC0415 - only for --tree

        print("\n".join(tree_lines(found, context.store.images(), context.store.containers())))
    elif arguments.given("quick"):
        for each in found:
            print(each.id)
    else:
        users = _users(context.store)
        for each in found:
            names = [f"\tname: {name}" for name in each.names]
            print("\n".join([each.id, *names, *users.get(each.id, ())]))
    return context.report_damage("layer")


def _users(store: Store) -> Mapping[str, list[str]]:
    """Describe, for each layer, the images and the container whose layer it is."""
    lines: dict[str, list[str]] = {}
    for image in store.images():
        for layer_id in image.top_layers:
            lines.setdefault(layer_id, []).append(f"\timage: {image.id}")
            lines[layer_id] += [f"\t\tname: {name}" for name in image.names]
    for container in store.containers():
        lines.setdefault(container.layer, []).append(f"\tcontainer: {container.id}")
        lines[container.layer] += [f"\t\tname: {name}" for name in container.names]
    return lines


def layer(context: Context, arguments: Arguments) -> int:
    """Describe layers."""
    found, code = each_of(arguments.positionals, context.store.layer)
    if arguments.given("json"):
        print_json([layer_json(each) for each in found])
        return code
    for each in found:
        lines = [f"ID: {each.id}", *idmap_lines(each.idmap)]
        lines += [f"Parent: {each.parent}"] if each.parent else []
        lines += [f"Name: {name}" for name in each.names]
        lines += ["Read Only: true"] if each.read_only else []
        print("\n".join(lines))
    return code


def create_layer(context: Context, arguments: Arguments) -> None:
    """Make an empty layer."""
    made = context.store.create_layer(
        arguments.positional(0) or None,
        layer_id=arguments.one("id"),
        names=arguments.every("name"),
        idmap=_idmap(context, arguments),
        read_only=arguments.given("readonly"),
        mount_label=arguments.one("label") or "",
        squash=context.squash,
    )
    _print_made(made, arguments)
    context.tell_of_depth(made.id)


def import_layer(context: Context, arguments: Arguments) -> None:
    """Make a layer from a tar."""
    with input_stream(arguments) as stream, progress_bar("importing") as progress:
        made = context.store.import_layer(
            stream,
            arguments.positional(0) or None,
            layer_id=arguments.one("id"),
            names=arguments.every("name"),
            idmap=_idmap(context, arguments),
            read_only=arguments.given("readonly"),
            mount_label=arguments.one("label") or "",
            squash=context.squash,
            progress=progress,
        )
    _print_made(made, arguments)
    context.tell_of_depth(made.id)


def delete_layer(context: Context, arguments: Arguments) -> int:
    """Delete layers that nothing stands on."""
    return delete_each(arguments, context.store.delete_layer)


def _idmap(context: Context, arguments: Arguments) -> IdMap | None:
    """Return the map that a new layer's files shall carry, or ``None`` for its parent's.

    None where everybody shifts when mounting: there, as with the peer, a map is the container's, and a
    layer that carried one, too, would be mapped twice by whoever mounts it with the Go library.
    """
    wanted = idmap_of(arguments)
    return IdMap() if wanted and context.store.explain_idmap(None, wanted).shifted_by_all else wanted


def _print_made(made: Layer, arguments: Arguments) -> None:
    if arguments.given("json"):
        print_json(layer_json(made))
    else:
        sys.stdout.write("\n".join(created_lines(made.id, made.names)) + "\n")
