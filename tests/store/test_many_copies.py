"""What looks at images does not pay for their mapped copies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hostspec.cli.main import main
from hostspec.idmap import IdMap
from hostspec.store import Image, Store
from hostspec.store.format.timestamps import now
from hostspec.store.graph_root import GraphRoot

LISTINGS = [("images",), ("images", "--json"), ("containers",), ("images", "--quiet")]

_listeners: list[list[str]] = []


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"}:
        for each in _listeners:
            each.append(str(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_note_opening)  # stays to the end of the process, and does nothing when nobody listens


def opened_by(do: Callable[[], object]) -> list[str]:
    """Return which files and directories are opened by what is done."""
    found: list[str] = []
    _listeners.append(found)
    try:
        do()
    finally:
        _listeners.remove(found)
    return found


def record_copies(graph_root: GraphRoot, image: Image, count: int) -> None:
    """Record mapped copies that the driver need not have, as nobody is to look."""
    with graph_root.editing(with_driver=False) as edits:
        top = edits.layers.get(image.layer or "")
        ids = [f"copy-{number}" for number in range(count)]
        for number, each in enumerate(ids):
            idmap = IdMap.parse([f"0:{100_000 * (number + 1)}:65536"])
            edits.layers.put(top._replace(id=each, created=now(), idmap=idmap))
        edits.images.put(edits.images.get(image.id)._replace(mapped_layers=tuple(ids)))
        edits.layers.save()
        edits.images.save()


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_listing_opens_the_same_files_with_one_copy_as_with_a_hundred(
    store: Store, image: Image, graph_root: GraphRoot, words: tuple[str, ...]
) -> None:
    def listing() -> None:
        assert main(["-g", store.root, "-R", store.run_root, "-s", "vfs", *words]) == 0

    record_copies(graph_root, image, 1)
    listing()  # modules are imported the first time
    with_one = opened_by(listing)
    record_copies(graph_root, image, 100)
    with_many = opened_by(listing)
    assert with_one == with_many
    assert any(path.startswith(store.root) for path in with_one)
    assert not any(Path(path).is_relative_to(f"{store.root}/vfs") for path in with_one)


def test_finding_the_copy_for_a_map_looks_at_no_other(
    store: Store, image: Image, graph_root: GraphRoot
) -> None:
    idmap = IdMap.parse(["0:100000:65536"])

    def choosing() -> None:
        assert store.explain_idmap("image", idmap).way == "reuse"

    record_copies(graph_root, image, 1)
    with_one = opened_after_the_first_time(choosing)
    record_copies(graph_root, image, 100)
    assert opened_after_the_first_time(choosing) == with_one


def opened_after_the_first_time(do: Callable[[], object]) -> list[str]:
    """Leave out what is read once, after it has changed, and kept in memory."""
    do()
    return opened_by(do)
