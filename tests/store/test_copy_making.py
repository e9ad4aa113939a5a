"""Several processes while a mapped copy is made: nobody waits for it who does not need it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostspec.store import Image, Store
from tests.store.invariants import faults_of
from tests.store.tars import MAP, tar_of

ROOT = Path(__file__).parents[2]
ENDURANCE = 120.0  # seconds, after which something hangs
COMMAND = "import sys; from hostspec.cli.main import main; sys.exit(main())"

Process = subprocess.Popen[str]


@pytest.fixture
def start(store: Store, image: Image) -> Iterator[Callable[[str], Process]]:
    """Starts processes that make a container of the name given; they are ended in the end."""
    assert image.names == ("image",)
    with ExitStack() as stack:

        def run(name: str) -> Process:
            words = [sys.executable, "-m", "tests.store.pausing", store.root, store.run_root, "vfs", name]
            process = stack.enter_context(
                subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert said(process) == "asking"
            return process

        yield run


def said(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def command(store: Store, *words: str) -> str:
    """Run a sub-command that must not wait for anybody, and return what it wrote."""
    flags = ["-g", store.root, "-R", store.run_root, "-s", "vfs"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *flags, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=ENDURANCE,
    )
    return done.stdout


def test_nobody_else_waits_while_a_copy_is_made(
    store: Store, image: Image, start: Callable[[str], Process]
) -> None:
    layer = store.import_layer(io.BytesIO(tar_of({"other": b"image"})))
    store.create_image(layer.id, names=["other"])
    maker = start("first")
    assert said(maker) == "copying"
    assert image.id in command(store, "images")
    assert layer.id in command(store, "layers")
    command(store, "create-container", "-n", "plain", "image")
    command(store, "create-container", "-n", "other", "--uidmap", MAP, "--idmap-strategy", "copy", "other")
    command(store, "delete-container", "plain")
    assert not store.has_container("first")
    go_on(maker)
    assert said(maker) == "done"
    assert {name for each in store.containers() for name in each.names} == {"first", "other"}


def test_two_that_ask_for_the_same_copy_make_one(store: Store, start: Callable[[str], Process]) -> None:
    first = start("first")
    assert said(first) == "copying"
    second = start("second")
    go_on(first)
    assert [said(first), said(second)] == ["done", "done"]  # the second never copied
    assert len(store.image("image").mapped_layers) == 1
    assert len(store.containers()) == 2


def test_when_the_one_that_makes_it_is_killed_another_makes_it(
    store: Store, start: Callable[[str], Process]
) -> None:
    first = start("first")
    assert said(first) == "copying"
    second = start("second")
    first.kill()
    first.wait()
    assert said(second) == "copying"
    go_on(second)
    assert said(second) == "done"
    (copy,) = store.image("image").mapped_layers
    assert store.layer(store.container("second").layer).parent == copy
    assert len(store.containers()) == 1
    assert sorted(store.driver.list_layers()) == sorted(layer.id for layer in store.layers())
    assert faults_of(store) == []
