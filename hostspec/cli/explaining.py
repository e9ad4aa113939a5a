"""How a container gets its ID map, and why so: for people and for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hostspec.cli.grammar import Arguments
from hostspec.cli.render import human_size, print_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostspec.idmap import IdMap
    from hostspec.store import Store
    from hostspec.store.configuration.policy import Strategy
    from hostspec.store.copies.strategies import Choice, Way

__all__ = ["choice_json", "choice_lines", "print_choice", "ways_table"]

WAYS = {
    "none": "The image's files are shown as they are",
    "shift": "Shifted when it is mounted",
    "reuse": "On a mapped copy that is there already",
    "template": "On a mapped copy that the driver makes",
    "copy": "On a mapped copy that is made by diff and apply",
}


def print_choice(
    store: Store, image: str | None, idmap: IdMap | None, strategy: Strategy | None, arguments: Arguments
) -> None:
    """Say how a container of this image would be made, and what that costs; make nothing."""
    choice = store.explain_idmap(image, idmap, strategy=strategy)
    cost = store.copy_cost(image) if image is not None and choice.slow else None
    if arguments.given("json"):
        files = {"files": cost.files, "bytes": cost.size} if cost is not None else None
        print_json({**choice_json(choice), "copies": files})
        return
    print("\n".join(choice_lines(choice)))
    if cost is not None:
        print(f"To be copied first: {cost.files} files, {human_size(cost.size)}")
    if choice.ways:
        sys.stdout.write("\n" + ways_table(choice.ways))


def choice_lines(choice: Choice) -> list[str]:
    """Describe which way it is, for people."""
    lines = [f"{WAYS[choice.way]}: {choice.reason}"]
    return [*lines, f"Note: {choice.not_for_podman}"] if choice.not_for_podman else lines


def choice_json(choice: Choice) -> dict[str, object]:
    """Describe which way it is, for a script."""
    return {
        "way": choice.way,
        "reason": choice.reason,
        "layer": choice.stands_on.id if choice.stands_on is not None else None,
        "slow": choice.slow,
        "not-for-podman": choice.not_for_podman or None,
        "strategies": [way._asdict() for way in choice.ways],
    }


def ways_table(ways: Sequence[Way]) -> str:
    """Lay out all ways, the cheapest first."""
    rows = [(way.name, "yes" if way.possible else "no", way.cost, way.reason) for way in ways]
    return table(("WAY", "POSSIBLE", "COST", "WHY"), rows)
