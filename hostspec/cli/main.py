"""The entry point: read the command line, run the sub-command, turn errors into exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, Command, UsageError, parse_flags
from hostspec.cli.surface import GLOBAL_FLAGS, find_command
from hostspec.errors import HostspecError

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = {
    "success": 0,
    "failure": 1,
    "interrupted": 130,
}
"""What a process that ran ``hostspec`` sees; the peer knows only the first two."""

GARBAGE_THRESHOLD = 50_000
"""Objects made between two searches for garbage; Python's own number is 700."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        words: The arguments after the program's name; ``None`` for this process's own.

    Returns:
        The exit code, see :data:`EXIT_CODES`.
    """
    # Loading modules makes many objects and no garbage; looking for it takes a tenth of a short command.
    gc.set_threshold(GARBAGE_THRESHOLD)
    words = sys.argv[1:] if words is None else words
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_CODES["interrupted"]
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES["failure"]
    except HostspecError as error:
        if _debugging(words):
            raise
        print(f"hostspec: {error}", file=sys.stderr)
        return EXIT_CODES["failure"]
    except OSError as error:
        if _debugging(words):
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"hostspec: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_CODES["failure"]
    return code


def _run(words: Sequence[str]) -> int:
    global_part = parse_flags(words, GLOBAL_FLAGS)
    name = global_part.positional(0)
    if name is None or global_part.given("help"):
        return _help(global_part.positionals)
    if name == "help":
        return _help(global_part.positionals[1:])
    command = find_command(name)
    own_part = parse_flags(global_part.positionals[1:], (*command.flags, *GLOBAL_FLAGS))
    if own_part.given("help"):
        return _help((name,))
    _check_count(command, own_part)
    arguments = Arguments(_joined(global_part, own_part), own_part.positionals)
    with Context(arguments) as context:
        return _function(command)(context, arguments) or EXIT_CODES["success"]


def _joined(first: Arguments, second: Arguments) -> dict[str, Sequence[str]]:
    keys = dict.fromkeys((*first.flags, *second.flags))
    return {key: (*first.every(key), *second.every(key)) for key in keys}


def _function(command: Command) -> Callable[[Context, Arguments], int | None]:
    module, _, function = command.run.partition(":")
    found = getattr(import_module(f"hostspec.cli.{module}"), function)
    return cast(Callable[[Context, Arguments], "int | None"], found)


def _check_count(command: Command, arguments: Arguments) -> None:
    given = len(arguments.positionals)
    if given < command.fewest or (command.most is not None and given > command.most):
        wanted = command.positionals or "no arguments"
        raise UsageError(
            command.names[0], f"takes {wanted}, got {given}; see hostspec {command.names[0]} --help"
        )


def _help(topic: Sequence[str]) -> int:
    from hostspec.cli.help import print_help  # noqa: PLC0415 - only who asks for help needs it

    print_help(topic)
    return EXIT_CODES["success"]


def _debugging(words: Sequence[str]) -> bool:
    return any(word in {"-D", "--debug"} for word in words)
