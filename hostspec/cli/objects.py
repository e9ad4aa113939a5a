"""Sub-commands that take layers, images and containers alike, and how such arguments are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import print_json
from hostspec.errors import HostspecError, InvalidRequest

__all__ = [
    "add_names",
    "delete",
    "delete_each",
    "each_of",
    "exists",
    "get_names",
    "given_metadata",
    "input_stream",
    "metadata",
    "print_error",
    "remove_names",
    "set_metadata",
    "set_names",
]

Result = TypeVar("Result")


def each_of(references: Sequence[str], run: Callable[[str], Result]) -> tuple[list[Result], int]:
    """Do the same with each; what fails is said on standard error, and the rest still done.

    Returns:
        The results, and the exit code.
    """
    results: list[Result] = []
    code = 0
    for reference in references:
        try:
            results.append(run(reference))
        except HostspecError as error:
            print_error(str(error))
            code = 1
    return results, code


def print_error(message: str) -> None:
    """Say on standard error what went wrong, and who says it."""
    sys.stdout.flush()
    print(f"hostspec: {message}", file=sys.stderr)


def given_metadata(arguments: Arguments) -> str | None:
    """Return the text of ``--metadata``, or of the file of ``--metadata-file``.

    Raises:
        InvalidRequest: The file cannot be read.
    """
    path = arguments.one("metadata-file")
    if not path:
        return arguments.one("metadata")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("--metadata-file", f"cannot be read: {error}") from error


@contextmanager
def input_stream(arguments: Arguments) -> Iterator[BinaryIO]:
    """Open the file of ``--file``, or standard input, for which an empty name stands, too.

    Raises:
        InvalidRequest: The file cannot be read.
    """
    path = arguments.one("file")
    if not path:
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only opening it may fail like this
    except OSError as error:
        raise InvalidRequest("--file", f"cannot be read: {error}") from error
    with file:
        yield file


def exists(context: Context, arguments: Arguments) -> int:
    """Tell whether objects exist, of the kinds asked for."""
    kinds = [kind for kind in ("layer", "image", "container") if arguments.given(kind)]
    store = context.store
    # As the peer does: what is printed tells whether there is anything of that name, and the exit code
    # whether there is one of each kind asked for.
    found = {reference: store.exists(reference) for reference in arguments.positionals}
    wanted = all(store.exists(reference, kinds=[kind]) for reference in found for kind in kinds)
    if arguments.given("json"):
        print_json(dict(sorted(found.items())))
    elif not arguments.given("quiet"):
        for reference, answer in found.items():
            print(f"{reference}: {str(answer).lower()}")
    return 0 if wanted and all(found.values()) else 1


def get_names(context: Context, arguments: Arguments) -> None:
    """Print the names of an object."""
    names = context.store.names(arguments.positionals[0])
    if arguments.given("json"):
        print_json(list(names))
    else:
        for name in names:
            print(name)


def add_names(context: Context, arguments: Arguments) -> None:
    """Give an object more names."""
    names = context.store.add_names(arguments.positionals[0], arguments.every("name"))
    _print_changed(names, arguments)


def set_names(context: Context, arguments: Arguments) -> None:
    """Give an object these names instead of those it has."""
    names = context.store.set_names(arguments.positionals[0], arguments.every("name"))
    _print_changed(names or None, arguments)


def remove_names(context: Context, arguments: Arguments) -> None:
    """Take names from an object."""
    names = context.store.remove_names(arguments.positionals[0], arguments.every("name"))
    _print_changed(names, arguments)


def _print_changed(names: Sequence[str] | None, arguments: Arguments) -> None:
    if arguments.given("json"):
        print_json(names)


def metadata(context: Context, arguments: Arguments) -> int:
    """Print the texts kept with objects."""
    store = context.store
    found, code = each_of(arguments.positionals, lambda reference: (reference, store.metadata(reference)))
    if arguments.given("json"):
        print_json(dict(sorted(found)))
        return code
    for reference, text in found:
        print(text.rstrip("\n") if arguments.given("quiet") else f"{reference}: {text}".rstrip("\n"))
    return code


def set_metadata(context: Context, arguments: Arguments) -> None:
    """Keep a text with an object."""
    text = given_metadata(arguments) or ""
    # As the peer does: an empty text removes the old one only if it comes from a file.
    if not (text or arguments.one("metadata-file")):
        raise UsageError("set-metadata", "needs the text: --metadata TEXT or --metadata-file FILE")
    context.store.set_metadata(arguments.positionals[0], text)


def delete(context: Context, arguments: Arguments) -> int:
    """Delete objects of any kind."""

    def delete_one(reference: str) -> None:
        context.refuse_if_running(reference)
        context.store.delete(reference)

    return delete_each(arguments, delete_one)


def delete_each(arguments: Arguments, run: Callable[[str], None]) -> int:
    """Delete objects one by one; one that stays does not keep the others from being deleted.

    Returns:
        The exit code.
    """
    errors: dict[str, str] = {}
    for reference in arguments.positionals:
        try:
            run(reference)
            errors[reference] = ""
        except HostspecError as error:
            errors[reference] = str(error)
    if arguments.given("json"):
        print_json(dict(sorted(errors.items())))
    else:
        for reference, message in errors.items():
            if message:
                print_error(f"{reference}: {message}")
    return 1 if any(errors.values()) else 0
