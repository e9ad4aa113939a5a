"""Sub-commands about big data: items that are kept with an image, a container or a layer."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import input_stream, print_error
from hostspec.cli.render import print_json
from hostspec.errors import InvalidRequest, Unknown
from hostspec.store import Container, Image, Layer

__all__ = [
    "get_container_data",
    "get_container_data_digest",
    "get_container_data_size",
    "get_image_data",
    "get_image_data_digest",
    "get_image_data_size",
    "get_layer_data",
    "list_container_data",
    "list_image_data",
    "list_layer_data",
    "set_container_data",
    "set_image_data",
    "set_layer_data",
]


def list_image_data(context: Context, arguments: Arguments) -> None:
    """List the items kept with an image."""
    _list(context.store.image(arguments.positionals[0]), arguments)


def list_container_data(context: Context, arguments: Arguments) -> None:
    """List the items kept with a container."""
    _list(context.store.container(arguments.positionals[0]), arguments)


def list_layer_data(context: Context, arguments: Arguments) -> None:
    """List the items kept with a layer."""
    _list(context.store.layer(arguments.positionals[0]), arguments)


def _list(record: Layer | Image | Container, arguments: Arguments) -> None:
    if arguments.given("json"):
        print_json(list(record.big_data) or None)
        return
    for key in record.big_data:
        print(key)


def get_image_data(context: Context, arguments: Arguments) -> int:
    """Write an item kept with an image."""
    reference, key = arguments.positionals
    try:
        image = context.store.image(reference)
    except Unknown:
        # Scripts look for these words.
        print_error(f'locating image with ID "{reference}": image not known')
        return 1
    return _get(context, image, key, arguments)


def get_container_data(context: Context, arguments: Arguments) -> int:
    """Write an item kept with a container."""
    reference, key = arguments.positionals
    return _get(context, context.store.container(reference), key, arguments)


def get_layer_data(context: Context, arguments: Arguments) -> int:
    """Write an item kept with a layer."""
    reference, key = arguments.positionals
    return _get(context, context.store.layer(reference), key, arguments)


def _get(context: Context, record: Layer | Image | Container, key: str, arguments: Arguments) -> int:
    try:
        content = context.store.big_data(record, key)
    except Unknown:
        print_error(f'locating item named "{key}" of "{record.id}": file does not exist')
        return 1
    path = arguments.one("file")
    if not path:
        sys.stdout.buffer.write(content)
        return 0
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise InvalidRequest("--file", f"cannot be written: {error.strerror}: {path}") from error
    return 0


def set_image_data(context: Context, arguments: Arguments) -> None:
    """Keep an item with an image."""
    _set(context, context.store.image(arguments.positionals[0]), arguments)


def set_container_data(context: Context, arguments: Arguments) -> None:
    """Keep an item with a container."""
    _set(context, context.store.container(arguments.positionals[0]), arguments)


def set_layer_data(context: Context, arguments: Arguments) -> None:
    """Keep an item with a layer."""
    _set(context, context.store.layer(arguments.positionals[0]), arguments)


def _set(context: Context, record: Layer | Image | Container, arguments: Arguments) -> None:
    with input_stream(arguments) as stream:
        context.store.set_big_data(record, arguments.positionals[1], stream.read())


def get_image_data_size(context: Context, arguments: Arguments) -> None:
    """Print the length in bytes of an item kept with an image."""
    reference, key = arguments.positionals
    image = context.store.image(reference)
    print(_fact(image.big_data_sizes, image, key))


def get_container_data_size(context: Context, arguments: Arguments) -> None:
    """Print the length in bytes of an item kept with a container."""
    reference, key = arguments.positionals
    container = context.store.container(reference)
    print(_fact(container.big_data_sizes, container, key))


def get_image_data_digest(context: Context, arguments: Arguments) -> None:
    """Print the digest of an item kept with an image."""
    reference, key = arguments.positionals
    image = context.store.image(reference)
    print(_fact(image.big_data_digests, image, key))


def get_container_data_digest(context: Context, arguments: Arguments) -> None:
    """Print the digest of an item kept with a container."""
    reference, key = arguments.positionals
    container = context.store.container(reference)
    print(_fact(container.big_data_digests, container, key))


def _fact(facts: Mapping[str, object], record: Image | Container, key: str) -> object:
    if key not in facts:
        raise Unknown("big data item", f"{key} of {record.id}")
    return facts[key]
