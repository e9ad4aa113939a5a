"""The contract is complete: every hook documented, reachable through the façade, and answered by somebody."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from hostspec.driver import GraphDriver
from hostspec.fallback import Fallback
from hostspec.hookspecs import PROJECT, REQUIRED_HOOKS, GraphDriverSpec

HOOKS: dict[str, Callable[..., Any]] = {
    name: hook for name, hook in vars(GraphDriverSpec).items() if not name.startswith("_")
}
WITHOUT_ANSWER = {"create", "remove", "seal", "commit", "unmount", "cleanup", "close"}
every_hook = pytest.mark.parametrize("name", sorted(HOOKS))


def section(name: str, title: str) -> str:
    """Return a section of a hook's docstring, or nothing."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)*)", inspect.getdoc(HOOKS[name]) or "", re.MULTILINE)
    return found[1] if found else ""


@every_hook
def test_a_hook_is_summed_up_in_one_line(name: str) -> None:
    first, *rest = (inspect.getdoc(HOOKS[name]) or "").split("\n")

    assert re.search(r"[.]$", first), first
    assert rest[:1] in ([], [""])


@every_hook
def test_a_hook_says_whether_it_must_be_implemented(name: str) -> None:
    summary = (inspect.getdoc(HOOKS[name]) or "").split("\n\n")[0]

    if name in REQUIRED_HOOKS:
        assert "Required" in summary
    else:
        assert re.search("May decline|Not needed|Repeatable", summary)


@every_hook
def test_a_hooks_types_are_complete(name: str) -> None:
    signature = inspect.signature(HOOKS[name])

    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in list(signature.parameters.values())[1:]:
        assert parameter.annotation is not inspect.Parameter.empty
        # pluggy sees neither keyword-only arguments nor defaults.
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert parameter.default is inspect.Parameter.empty


@every_hook
def test_arguments_that_are_described_exist(name: str) -> None:
    described = set(re.findall(r"^    (\w+):", section(name, "Args"), re.MULTILINE))

    assert described <= set(inspect.signature(HOOKS[name]).parameters)


@every_hook
def test_errors_that_are_described_exist(name: str) -> None:
    from hostspec import errors  # noqa: PLC0415

    described = set(re.findall(r"^    (\w+):", section(name, "Raises"), re.MULTILINE))

    assert described <= set(errors.__all__)


@every_hook
def test_the_first_answer_counts(name: str) -> None:
    assert getattr(HOOKS[name], f"{PROJECT}_spec")["firstresult"] is True


def test_the_required_hooks_exist() -> None:
    assert HOOKS.keys() >= REQUIRED_HOOKS


@every_hook
def test_the_facade_offers_every_hook_with_its_arguments(name: str) -> None:
    offered = inspect.getattr_static(GraphDriver, name)

    if name == "capabilities":
        assert not callable(offered)
        return
    wanted = list(inspect.signature(HOOKS[name]).parameters)
    assert list(inspect.signature(offered).parameters)[: len(wanted)] == wanted


@every_hook
def test_a_hook_that_answers_has_a_fallback_unless_it_is_required(name: str) -> None:
    has_fallback = hasattr(getattr(Fallback, name, None), f"{PROJECT}_impl")

    assert has_fallback == (name not in REQUIRED_HOOKS | WITHOUT_ANSWER)


@every_hook
def test_a_fallback_takes_the_arguments_of_its_hook(name: str) -> None:
    if fallback := getattr(Fallback, name, None):
        assert list(inspect.signature(fallback).parameters) == list(inspect.signature(HOOKS[name]).parameters)
        assert getattr(fallback, f"{PROJECT}_impl")["trylast"] is True
