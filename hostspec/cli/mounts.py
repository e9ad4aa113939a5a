"""Sub-commands that mount."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments
from hostspec.cli.objects import print_error
from hostspec.cli.render import print_json
from hostspec.errors import HostspecError, InvalidRequest, Unknown
from hostspec.store import Store

__all__ = ["mount", "mounted", "unmount"]


class Result(NamedTuple):
    """What became of one ID."""

    reference: str
    """ID or name as given."""
    answer: str
    """A path or a line to print, ``""`` for none."""
    error: str
    """What went wrong, or ``""``."""


def mount(context: Context, arguments: Arguments) -> int:
    """Mount containers, layers or (read-only) images."""
    read_only = arguments.given("read-only")
    label = arguments.one("label") or ""
    options = [each for given in arguments.every("opt") for each in given.split(",") if each]
    read_only = read_only or "ro" in options
    options = [each for each in options if each not in {"ro", "rw"}]

    def run(reference: str) -> str:
        # An image is mounted by who says that nothing will be written.
        if not read_only and not context.store.exists(reference, kinds=["container", "layer"]):
            raise Unknown("layer", reference)
        return context.store.mount(reference, read_only=read_only, mount_label=label, options=options)

    results = _each(arguments, run, "while mounting")
    if arguments.given("json"):
        print_json(
            [{"id": each.reference, "mountpoint": each.answer, "error": each.error} for each in results]
        )
    else:
        # A line for each, so that scripts know which is which; an empty one where it failed.
        for each in results:
            print(each.answer)
    return _code(results)


def unmount(context: Context, arguments: Arguments) -> int:
    """Give mounts back; says which are really gone."""
    force = arguments.given("force")
    results = _each(
        arguments, lambda reference: _unmount(context.store, reference, force=force), "while unmounting"
    )
    _print_answers(arguments, results)
    return _code(results)


def _unmount(store: Store, reference: str, *, force: bool) -> str:
    try:
        gone = store.unmount(reference, force=force)
    except InvalidRequest:
        # Scripts unmount to be sure, so what is not mounted is a success, as with the peer.
        if store.mounted(reference):
            raise
        gone = True
    is_image = not store.exists(reference, kinds=["layer", "container"])
    return f"{reference} mountpoint unmounted" if gone and not is_image else ""


def mounted(context: Context, arguments: Arguments) -> int:
    """Tell which of them are mounted."""

    def run(reference: str) -> str:
        return f"{reference} mounted" if context.store.mounted(reference) else ""

    results = _each(arguments, run, "while looking whether it is mounted:")
    _print_answers(arguments, results)
    return _code(results)


def _each(arguments: Arguments, run: Callable[[str], str], doing: str) -> list[Result]:
    """Do the same with each ID; one that fails does not keep the others from being tried."""
    results = []
    for reference in arguments.positionals:
        try:
            results.append(Result(reference, run(reference), ""))
        except HostspecError as error:
            results.append(Result(reference, "", str(error)))
            print_error(f"{error} {doing} {reference}")
    return results


def _print_answers(arguments: Arguments, results: list[Result]) -> None:
    """Print the answers; as with the peer also before the JSON, which has only the errors."""
    for each in results:
        if each.answer:
            print(each.answer)
    if arguments.given("json"):
        print_json([{"id": each.reference, "error": each.error} for each in results])


def _code(results: list[Result]) -> int:
    return 1 if any(each.error for each in results) else 0
