from __future__ import annotations

import pytest

from hostspec.errors import HostspecError, InvalidRequest, OperationNotSupported
from hostspec_overlay.options import parse_mount_options, parse_options


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"overlay\.mountop.*is not known"):
        parse_options([("mountop", "nodev")])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_composefs", "true"),
        ("additionallayerstore", "/store:ref"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(OperationNotSupported, match=rf"overlay\.{name}={value}"):
        parse_options([(name, value)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mount_program", ""),
        ("size", "0"),
        ("inodes", ""),
        ("force_mask", ""),
        ("use_composefs", "false"),
        ("override_kernel_check", "1"),
    ],
)
def test_an_option_that_asks_for_nothing_is_taken(name: str, value: str) -> None:
    assert parse_options([(name, value)]) == parse_options([])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ignore_chown_errors", "maybe"),
        ("hostspec_mount_api", "newest"),
        ("additionalimagestore", "not/absolute"),
        ("mount_program", "fuse-overlayfs"),
        ("size", "large"),
        ("inodes", "1k"),
        ("inodes", "-1"),
    ],
)
def test_a_value_that_is_not_possible_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(HostspecError, match=value):
        parse_options([(name, value)])


def test_mount_options_become_attributes_and_overlayfs_options() -> None:
    choices = parse_options([("mountopt", "nodev,metacopy=on,volatile")]).mount

    assert choices.attributes == {"nodev"}
    assert choices.overlay == (("metacopy", "on"), ("volatile", None))
    assert choices.overlay_option("metacopy") == "on"
    assert choices.overlay_option("index") is None


def test_of_contradicting_mount_options_the_last_one_counts() -> None:
    choices = parse_mount_options(["ro,metacopy=on", "rw", "metacopy=off"])

    assert choices.attributes == frozenset()
    assert choices.overlay == (("metacopy", "off"),)


@pytest.mark.parametrize("option", ["lowerdir=/etc", "metacopy=perhaps", "nodevv", "upperdir=/x"])
def test_a_mount_option_that_is_not_known_is_refused_by_name(option: str) -> None:
    with pytest.raises(InvalidRequest, match=option):
        parse_mount_options([f"nodev,{option}"])
