"""How the commands are explained."""

from __future__ import annotations

from collections.abc import Sequence

from hostspec.cli.grammar import Command, Flag
from hostspec.cli.surface import GLOBAL_FLAGS, GROUPS, find_command

__all__ = ["print_help"]

INTRODUCTION = """\
hostspec keeps layered root file systems: images, and containers that stand on them,
under any ID map, with drivers that are Python plugins. The store is the one that
podman, buildah and skopeo use.

Usage: hostspec [FLAGS] COMMAND [FLAGS] [ARGUMENTS]
"""

START = """\
To start:
  hostspec demo                                         see it work on this machine
  hostspec drivers                                      what can be used here
  hostspec import --name debian ./rootfs                make an image of a directory
  hostspec create-container --name web --uidmap 0:100000:65536 debian
  hostspec mount web                                    prints the directory

hostspec COMMAND --help explains one command.
"""


def print_help(topic: Sequence[str]) -> None:
    """Explain everything, or the one command named in ``topic``.

    Raises:
        UsageError: There is no such command.
    """
    print(_of_command(find_command(topic[0])) if topic else _of_all(), end="")


def _of_all() -> str:
    lines = [INTRODUCTION]
    width = max(len(command.names[0]) for group in GROUPS.values() for command in group)
    for title, commands in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {command.names[0]:{width}}  {command.summary}" for command in commands]
        lines.append("")
    lines += ["Flags for every command:", *_of_flags(GLOBAL_FLAGS), "", START]
    return "\n".join(lines)


def _of_command(command: Command) -> str:
    flags = " [FLAGS]" if command.flags else ""
    positionals = f" {command.positionals}" if command.positionals else ""
    lines = [f"Usage: hostspec {command.names[0]}{flags}{positionals}", "", f"{_sentence(command.summary)}"]
    if len(command.names) > 1:
        lines.append(f"Also called {', '.join(command.names[1:])}.")
    if command.flags:
        lines += ["", "Flags:", *_of_flags(command.flags)]
    lines += ["", "Flags for every command:", *_of_flags(GLOBAL_FLAGS)]
    if command.example:
        lines += ["", "Example:", f"  {command.example}"]
    return "\n".join((*lines, ""))


def _of_flags(flags: Sequence[Flag]) -> list[str]:
    shown = [(f"{', '.join(flag.spellings)} {flag.value}".rstrip(), flag) for flag in flags]
    width = max(len(text) for text, _ in shown)
    return [
        f"  {text:{width}}  {flag.summary}{' (may be repeated)' if flag.repeats else ''}"
        for text, flag in shown
    ]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
