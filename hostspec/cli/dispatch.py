"""Which function runs a command line, and with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, Command, UsageError, parse_flags, parse_flags_anywhere
from hostspec.cli.surface import GLOBAL_FLAGS, find_command

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Run one command line.

    Args:
        words: The arguments after the program's name.

    Returns:
        The exit code that the sub-command asks for, 0 for success.

    Raises:
        HostspecError: It could not be done, or the command line cannot be understood (``UsageError``).
        OSError: The operating system refused.
    """
    global_part = parse_flags(words, GLOBAL_FLAGS)
    name = global_part.positional(0)
    if name is None or global_part.given("help"):
        return _help(global_part.positionals)
    if name == "help":
        return _help(global_part.positionals[1:])
    command = find_command(name)
    # Its own come last, and so before global ones of the same spelling.
    parse = parse_flags_anywhere if command.flags_anywhere else parse_flags
    try:
        own_part = parse(global_part.positionals[1:], (*GLOBAL_FLAGS, *command.flags))
        if own_part.given("help"):
            return _help((name,))
        heeded = _counted(command, own_part.positionals)
    except UsageError as error:
        error.exit_code = command.usage_exit_code
        raise
    arguments = Arguments(_joined(global_part, own_part), heeded)
    with Context(arguments) as context:
        return _function(command)(context, arguments) or 0


def _joined(first: Arguments, second: Arguments) -> dict[str, Sequence[str]]:
    keys = dict.fromkeys((*first.flags, *second.flags))
    return {key: (*first.every(key), *second.every(key)) for key in keys}


def _function(command: Command) -> Callable[[Context, Arguments], int | None]:
    module, _, function = command.run.partition(":")
    found = getattr(import_module(f"hostspec.cli.{module}"), function)
    return cast(Callable[[Context, Arguments], "int | None"], found)


def _counted(command: Command, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return those positional arguments that the command heeds."""
    too_many = command.most is not None and len(given) > command.most and not command.ignores_more
    if len(given) < command.fewest or too_many:
        wanted = command.positionals or "no arguments"
        reason = f"takes {wanted}, got {len(given)}; see hostspec {command.names[0]} --help"
        raise UsageError(command.names[0], reason)
    return given[: command.most]


def _help(topic: Sequence[str]) -> int:
    from hostspec.cli.help import print_help  # noqa: PLC0415 - only who asks for help needs it

    print_help(topic)
    return 0
