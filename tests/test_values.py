"""The values that cross the contract cannot be changed, and say what they are."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from hostspec import values
from hostspec.idmap import IdMap
from hostspec.values import Capabilities, Change, ChangeKind, CreateOptions, LayerRef, MountOptions

VALUES: list[type[Any]] = [
    each
    for _, each in inspect.getmembers(values, inspect.isclass)
    if hasattr(each, "_fields") and each.__module__ == values.__name__
]
OPTIONS = [each for each in VALUES if each.__name__.endswith("Options")]
every_value = pytest.mark.parametrize("value", VALUES, ids=lambda each: each.__name__)


@every_value
def test_every_field_of_a_value_is_described(value: type[Any]) -> None:
    source = inspect.getsource(value)

    for name in value._fields:
        assert re.search(rf'^    {name}: .*\n    """', source, re.MULTILINE), name


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: each.__name__)
def test_options_have_a_default_each_and_cannot_be_changed(options: type[Any]) -> None:
    made = options()

    for name in options._fields:
        with pytest.raises(AttributeError):
            setattr(made, name, None)
    assert options(**made._asdict()) == made


def test_capabilities_default_to_what_a_plain_driver_has() -> None:
    assert Capabilities() == Capabilities(
        contract=1,
        stages_layers=False,
        layers_are_whole=False,
        mounts_privately=True,
        read_only_mounts=True,
        limits_size=False,
        limits_inodes=False,
        max_depth=None,
    )


def test_nothing_is_mapped_unless_asked_for() -> None:
    assert CreateOptions().idmap == MountOptions().idmap == LayerRef("abc").idmap == IdMap()


def test_a_change_reads_as_in_the_command_line() -> None:
    assert str(Change("/etc/passwd", ChangeKind.MODIFY)) == "Modify /etc/passwd"
