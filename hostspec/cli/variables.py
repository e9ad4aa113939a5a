"""The environment variables that are asked for by flags and files, as podman reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hostspec.cli.grammar import Arguments, UsageError

__all__ = ["variables"]

_BLANKS = " \t"


def variables(arguments: Arguments) -> tuple[str, ...]:
    """Return what ``--env-file`` and ``--env`` ask for as ``NAME=VALUE``; of one name, the last counts.

    A name alone stands for the value that it has here, and ``NAME*`` for all variables here whose names
    begin so; one that is not here is left out.

    Raises:
        UsageError: One has no name, or blanks in it.
        OSError: A file cannot be read.
    """
    asked = [(f"--env-file {path}", text) for path in arguments.every("env-file") for text in _lines(path)]
    asked += [("--env", text) for text in arguments.every("env")]
    return tuple(variable for where, text in asked for variable in _meant(where, text))


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a file that are neither empty nor comments."""
    # What is no UTF-8 reaches the command as it is; only a line's end ends a line.
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            text = line.removesuffix("\n").removesuffix("\r").lstrip(_BLANKS)
            if text and not text.startswith("#"):
                yield text


def _meant(where: str, text: str) -> Iterator[str]:
    name, equals, _ = text.partition("=")
    if not name or any(blank in name for blank in _BLANKS):
        raise UsageError(where, f"{text!r} is not NAME=VALUE")
    if equals:
        yield text
    elif name.endswith("*"):
        yield from (f"{each}={value}" for each, value in os.environ.items() if each.startswith(name[:-1]))
    elif name in os.environ:
        yield f"{name}={os.environ[name]}"
