"""Everything that can be seen of a store, without what differs between two stores of the same history."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hostspec.kernel.mountinfo import mount_points
from tests.peers.clients import Place
from tests.peers.differences import comparable_member, comparable_root
from tests.peers.players import Outcome, play_hostspec, play_peer

__all__ = ["Snapshot", "snapshot"]

_TABLES = (
    ("layers", ("layers.json", "volatile-layers.json")),
    ("images", ("images.json",)),
    ("containers", ("containers.json", "volatile-containers.json")),
)
_TIME = re.compile(r'"created":"[0-9T:.Z+-]+"')
_PROGRAMS: Mapping[str, Callable[[Place, tuple[str, ...]], Outcome]] = {
    "hostspec": play_hostspec,
    "containers-storage": play_peer,
}

Records = dict[str, list[list[tuple[str, object]]]]
"""Of each table, its records; of each record, its fields in their order."""


class Snapshot(NamedTuple):
    """What a store holds, as one program sees it."""

    records: Records
    """The records on disk."""
    listings: Mapping[str, str]
    """What the commands that list print."""
    diffs: Mapping[str, object]
    """The tar of each layer against its parent, entry by entry."""
    trees: Mapping[str, object]
    """The files of each container, as it is mounted."""
    items: Mapping[str, bytes]
    """The files of big data, by their paths."""
    driver_layers: frozenset[str]
    """What the driver holds."""
    mounts: int
    """How many layers are mounted."""


def snapshot(place: Place, program: str, scratch: str) -> Snapshot:
    """Look at everything.

    Args:
        place: Whose store.
        program: Who looks: ``"hostspec"`` or ``"containers-storage"``.
        scratch: Path of a file that may be written.
    """
    run = _PROGRAMS[program]
    names = _made_up_ids(place)
    records = _records(place, names)
    layers = [_field(record, "id") for record in records["layers"]]
    real = {shown: made_up for made_up, shown in names.items()}
    listings = {
        word: _renamed(run(place, (word,)).output, names) for word in ("layers", "images", "containers")
    }
    return Snapshot(
        records,
        listings,
        {each: _diff(run, place, real.get(each, each), scratch) for each in sorted(layers)},
        {
            each: _tree_of(run, place, each)
            for each in sorted(_field(record, "id") for record in records["containers"])
        },
        _items(place, names),
        frozenset(names.get(each, each) for each in _driver_layers(place)),
        len([each for each in mount_points(place.graph) if each.endswith("/merged")]),
    )


def _raw_records(place: Place) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for kind, files in _TABLES:
        found[kind] = []
        for name in files:
            path = os.path.join(place.graph, f"{place.driver}-{kind}", name)
            if os.path.exists(path):
                with open(path, "rb") as file:
                    found[kind] += json.loads(file.read() or b"[]") or []
    return found


def _made_up_ids(place: Place) -> dict[str, str]:
    """Return a name for each ID that a program made up, by what it is."""
    tables = _raw_records(place)
    layers = {str(layer["id"]): layer for layer in tables["layers"]}
    names = {str(each["layer"]): f"layer of {each['id']}" for each in tables["containers"]}
    for image in tables["images"]:
        for copy in image.get("mapped-layers") or ():  # type: ignore[attr-defined]
            maps = {key: layers.get(copy, {}).get(key) for key in ("uidmap", "gidmap")}
            names[copy] = f"copy of {image['layer']} {json.dumps(maps)}".replace('"', "'")
    return names


def _records(place: Place, names: Mapping[str, str]) -> Records:
    found: Records = {}
    for kind, files in _TABLES:
        found[kind] = []
        for name in files:
            path = os.path.join(place.graph, f"{place.driver}-{kind}", name)
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    text = _TIME.sub('"created":"TIME"', _renamed(file.read(), names))
                found[kind] += json.loads(text or "[]", object_pairs_hook=list) or []
    for records in found.values():
        records.sort(key=lambda record: _field(record, "id"))
    return found


def _field(record: list[tuple[str, object]], name: str) -> str:
    return next(str(value) for key, value in record if key == name)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for made_up, shown in names.items():
        text = text.replace(made_up, shown)
    return text


def _diff(run: Callable[[Place, tuple[str, ...]], Outcome], place: Place, layer: str, scratch: str) -> object:
    outcome = run(place, ("diff", "-u", "-f", scratch, layer))
    if not outcome.done:
        return outcome.error
    with tarfile.open(scratch) as tar:
        return sorted(_entry(tar, member) for member in tar)


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, ...]:
    file = tar.extractfile(member) if member.isreg() else None
    return *comparable_member(member), file.read().decode(errors="replace") if file else ""


def _tree_of(run: Callable[[Place, tuple[str, ...]], Outcome], place: Place, container: str) -> object:
    mounted = run(place, ("mount", container))
    if not mounted.done:
        return mounted.done
    root = mounted.output.strip().replace("GRAPH", place.graph).replace("RUN", place.run)
    tree = sorted(_entries(root, place.driver))
    run(place, ("unmount", container))
    return tree


def _entries(root: str, driver: str) -> Iterator[tuple[object, ...]]:
    for directory, _, names in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            status = os.lstat(path)
            content = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read().decode(errors="replace")
            mode, owner = oct(status.st_mode), (status.st_uid, status.st_gid)
            if path == root:
                mode, owner = comparable_root(driver, status.st_mode, owner)
            yield os.path.relpath(path, root), mode, owner, content


def _items(place: Place, names: Mapping[str, str]) -> dict[str, bytes]:
    found = {}
    for kind in ("layers", "images", "containers"):
        table = os.path.join(place.graph, f"{place.driver}-{kind}")
        for directory, _, files in os.walk(table):
            if directory != table and "hostspec" not in directory.removeprefix(table):
                for name in files:
                    path = os.path.join(directory, name)
                    with open(path, "rb") as file:
                        found[_renamed(f"{kind}{path.removeprefix(table)}", names)] = file.read()
    return dict(sorted(found.items()))


def _driver_layers(place: Place) -> list[str]:
    home = os.path.join(place.graph, place.driver)
    inner = {"btrfs": "subvolumes", "vfs": "dir"}.get(place.driver, ".")
    own = {"l", "staging", "tempdirs", ".has-mount-program"}
    try:
        return [each for each in os.listdir(os.path.join(home, inner)) if each not in own]
    except FileNotFoundError:
        return []
