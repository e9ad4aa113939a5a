"""The error tree is what its drawing says, and errors say what callers need."""

from __future__ import annotations

import inspect
import re

import pytest

from hostspec import errors
from hostspec.errors import (
    DriverFailed,
    Duplicate,
    HostspecError,
    IdNotMapped,
    InvalidArchive,
    LayerInUse,
    OperationNotSupported,
    StoreCorrupt,
    Unknown,
    WrongFilesystem,
)


def drawn_tree() -> dict[str, str]:
    """Return the parent of each class, as the drawing in the module's docstring has it."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?:\s|$)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                parents[found[2]] = path[depth - 1]
    return parents


def defined_tree() -> dict[str, str]:
    classes = [
        each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, HostspecError)
    ]
    return {
        each.__name__: each.__base__.__name__ for each in classes if each.__base__ not in {None, Exception}
    }


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert drawn_tree() == defined_tree()


def test_every_error_is_public_and_described() -> None:
    assert {*defined_tree(), "HostspecError"} <= set(errors.__all__)
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unknown("layer", "abc"), "layer not known: 'abc'"),
        (Duplicate("name", "web", "abc"), "that name is already in use by abc: 'web'"),
        (Duplicate("ID", "abc", "abc"), "that ID is already in use: 'abc'"),
        (LayerInUse("abc", ["one", "two"]), "layer abc is in use by one, two"),
        (
            OperationNotSupported("vfs", "quota", "directories have none"),
            "driver 'vfs': quota: directories have none",
        ),
        (WrongFilesystem("btrfs", "/var is on ext4"), "driver 'btrfs': /var is on ext4"),
        (StoreCorrupt("/s/layers.json", "no JSON"), "/s/layers.json: no JSON"),
        (InvalidArchive("cut off", "etc/passwd"), "'etc/passwd': cut off"),
    ],
)
def test_the_message_is_made_from_the_facts(error: HostspecError, message: str) -> None:
    assert str(error) == message


def test_an_id_outside_the_map_is_named_with_its_path_and_a_way_out() -> None:
    error = IdNotMapped("etc/shadow", "host GID", 42)

    assert (error.path, error.kind, error.number) == ("etc/shadow", "host GID", 42)
    assert re.match(r"etc/shadow: host GID 42 is not in the ID map; .*squash", str(error))


def test_what_the_operating_system_said_is_kept() -> None:
    error = DriverFailed("mount layer abc", OSError(28, "No space left on device", "/var"))

    assert str(error) == "mount layer abc: [Errno 28] No space left on device: '/var'"
