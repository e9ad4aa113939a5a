"""The hooks of a new driver, written from the contract: signatures and docstrings are its own."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator

from hostspec.hookspecs import CONTRACT_VERSION, REQUIRED_HOOKS, GraphDriverSpec

__all__ = ["optional_hooks", "required_hooks"]

BODIES = {
    "capabilities": f"return Capabilities(contract={CONTRACT_VERSION})",
}
"""What already works in a driver of which nothing is written."""


def required_hooks(driver: str) -> str:
    """Return the methods that every driver has, as source text indented for a class."""
    return "\n".join(
        _method(driver, name, hook) for name, hook in _hooks() if name in REQUIRED_HOOKS
    ).rstrip()


def optional_hooks() -> str:
    """Return a list of the other hooks: for each, its name, its parameters and what it does."""
    lines = []
    for name, hook in _hooks():
        if name not in REQUIRED_HOOKS:
            parameters = ", ".join(inspect.signature(hook).parameters)
            lines.append(f"``{name}({parameters.removeprefix('self').removeprefix(', ')})``")
            lines.append(textwrap.indent(_summary(hook), "    "))
    return "\n".join(lines)


def _hooks() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the hooks of the contract, in its order."""
    for name, hook in vars(GraphDriverSpec).items():
        if inspect.isfunction(hook) and not name.startswith("_"):
            yield name, hook


def _method(driver: str, name: str, hook: Callable[..., object]) -> str:
    # Annotations are text, since the contract's module postpones them.
    signature = inspect.signature(hook)
    parameters = ", ".join(
        parameter if each.annotation is each.empty else f"{parameter}: {each.annotation}"
        for parameter, each in signature.parameters.items()
    )
    body = BODIES.get(name, f'raise NotImplementedError("{driver}: {name} is not written yet")')
    contract = inspect.getdoc(hook) or ""
    end = "\n" if "\n" in contract else ""
    lines = [
        "@hookimpl",
        f"def {name}({parameters}) -> {signature.return_annotation}:",
        textwrap.indent(f'"""{contract}{end}"""', "    "),
        f"    {body}",
    ]
    return textwrap.indent("\n".join(lines), "    ") + "\n"


def _summary(hook: Callable[..., object]) -> str:
    return (inspect.getdoc(hook) or "").partition("\n")[0]
