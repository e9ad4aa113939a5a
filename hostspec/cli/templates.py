"""Lines as a script wants them: what podman's ``--format`` does with the plain fields of a Go template."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hostspec.cli.grammar import UsageError

__all__ = ["filled"]

_PLACE = r"\{\{\s*(.*?)\s*\}\}"


def filled(template: str, fields: Mapping[str, str]) -> str:
    r"""Return a template with each ``{{.FIELD}}`` replaced, and ``\t`` and ``\n`` by what they stand for.

    Raises:
        UsageError: It names another field, or is more than a template's plain fields.
    """

    def value(place: re.Match[str]) -> str:
        name = place[1].removeprefix(".")
        if name not in fields:
            known = ", ".join(f"{{{{.{each}}}}}" for each in fields)
            raise UsageError("--format", f"{place[0]} is none of {known}")
        return fields[name]

    return re.sub(_PLACE, value, template.replace(r"\t", "\t").replace(r"\n", "\n"))
