"""What installed distributions announce to hostspec: entry points, by group.

``importlib.metadata`` gives the same, but importing it costs more than half of what a whole
``hostspec layers`` may take, so the ``entry_points.txt`` files are read directly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

__all__ = ["Announcement", "announced"]


class Announcement(NamedTuple):
    """One entry point."""

    name: str
    """What it is called."""
    value: str
    """Where its object is: ``package.module:attribute``."""
    distribution: str
    """Name of the distribution that announces it."""
    version: str
    """Version of that distribution."""

    def load(self) -> object:
        """Import the object.

        Raises:
            Exception: Whatever the import raises.
        """
        module_name, _, attribute = self.value.partition(":")
        target: object = import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
        return target


def announced(group: str) -> Iterator[Announcement]:
    """Yield the entry points of a group, in the order of ``sys.path``, without importing anything."""
    seen: set[str] = set()
    for directory in dict.fromkeys(sys.path):
        try:
            names = os.listdir(directory or os.curdir)
        except OSError:
            continue
        for name in sorted(each for each in names if each.endswith((".dist-info", ".egg-info"))):
            stem = name.rpartition(".")[0]
            distribution, _, version = stem.partition("-")
            distribution = distribution.replace("_", "-")
            # As for imports, the first of several copies on the path is the one that counts.
            if distribution in seen:
                continue
            seen.add(distribution)
            for key, value in _lines_of(os.path.join(directory, name, "entry_points.txt"), group):
                yield Announcement(key, value, distribution, version)


def _lines_of(path: str, group: str) -> Iterator[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    inside = False
    for line in lines:
        text = line.strip()
        if text.startswith("["):
            inside = text == f"[{group}]"
        elif inside and text and not text.startswith(("#", ";")):
            name, _, value = text.partition("=")
            yield name.strip(), value.partition("[")[0].strip()
