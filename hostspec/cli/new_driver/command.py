"""The ``new-driver`` sub-command."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from hostspec import __version__
from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.new_driver.skeleton import optional_hooks, required_hooks
from hostspec.cli.render import print_json
from hostspec.errors import Duplicate
from hostspec.plugins import installed_drivers

__all__ = ["new_driver"]

NAME = re.compile(r"[a-z](-?[a-z0-9])*")
TEMPLATE_SUFFIX = ".template"


def new_driver(context: Context, arguments: Arguments) -> None:
    """Write a distribution for a driver of the given name, and print where it is."""
    del context  # a new driver needs no store
    name = arguments.positionals[0]
    _check_name(name)
    directory = os.path.abspath(
        arguments.positionals[1] if len(arguments.positionals) > 1 else f"hostspec-{name}"
    )
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise Duplicate("directory", directory)
    module = f"hostspec_{name.replace('-', '_')}"
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")) + "Driver",
        "version": __version__,
        "required_hooks": required_hooks(name),
        "optional_hooks": optional_hooks(),
    }
    written = sorted(_write(files(__package__) / "distribution", directory, words))
    if arguments.given("json"):
        print_json({"directory": directory, "files": written})
    else:
        print(directory)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            "NAME", f"{name!r} is no name for a driver; use a-z, 0-9 and single hyphens, like zfs"
        )
    taken = {each.name: each.distribution for each in installed_drivers()}
    if name in taken:
        raise UsageError("NAME", f"the distribution {taken[name]} is installed, and has a driver {name!r}")


def _write(template: Traversable, target: str, words: dict[str, str]) -> list[str]:
    """Write a directory of templates, and return the paths of the files written.

    ``$module`` in the name of a file or a directory is the import package; a leading ``dot-`` is a dot.
    """
    os.makedirs(target, exist_ok=True)
    written: list[str] = []
    for each in template.iterdir():
        name = Template(each.name).substitute(words)
        path = os.path.join(target, re.sub("^dot-", ".", name).removesuffix(TEMPLATE_SUFFIX))
        if each.is_dir():
            written += _write(each, path, words)
            continue
        with open(path, "x", encoding="utf-8") as file:
            file.write(Template(each.read_text(encoding="utf-8")).substitute(words))
        written.append(path)
    return written
