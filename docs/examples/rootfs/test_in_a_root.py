"""Tests that run real programs, each in a writable root file system of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hostspec.store import Image
from hostspec.testing.clones import Clone, LayerClone


def run_in(root: Path, script: str) -> str:
    command = ("chroot", str(root), "/bin/sh", "-c", script)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_program_reads_and_writes_its_root(rootfs: Path) -> None:
    assert run_in(rootfs, "echo changed > /etc/greeting; cat /etc/greeting") == "changed\n"


def test_another_test_sees_nothing_of_it(rootfs: Path) -> None:
    assert run_in(rootfs, "cat /etc/greeting") == "hello\n"


@pytest.fixture(scope="session")
def prepared(session_layer_clone: LayerClone, rootfs_image: Image) -> Clone:
    """A root in which something slow was done, once."""
    clone = session_layer_clone(rootfs_image)
    run_in(clone.path, "echo prepared > /state")
    return clone


@pytest.mark.parametrize("turn", range(3))
def test_each_gets_a_clone_of_what_was_prepared(layer_clone: LayerClone, prepared: Clone, turn: int) -> None:
    root = layer_clone(prepared).path
    assert run_in(root, f"echo {turn} >> /state; cat /state") == f"prepared\n{turn}\n"
