from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import LayerInUse
from hostspec.kernel.mountinfo import mount_points
from hostspec.values import LayerRef

from .conftest import AddLayer, OpenOverlay


def test_a_layer_with_a_child_is_kept_and_the_child_named(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base")
    add_layer(driver, "child", base)

    with pytest.raises(LayerInUse) as refused:
        driver.remove("base")

    assert refused.value.users == ("child",)
    assert driver.exists("base")


def test_a_template_is_kept_as_long_as_a_hidden_child_stands_on_it(
    driver: GraphDriver, add_layer: AddLayer
) -> None:
    base = add_layer(driver, "base")
    template = add_layer(driver, "template", base)
    driver.create_from_template("copy", template, base)
    driver.commit("copy")

    with pytest.raises(LayerInUse) as refused:
        driver.remove("template")
    assert refused.value.users == ("copy",)

    for layer_id in ("copy", "template", "base"):
        driver.remove(layer_id)
    assert driver.list_layers() == []


def test_children_that_others_made_meanwhile_are_noticed(
    ext4_directory: str, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    ours, theirs = open_overlay(ext4_directory), open_overlay(ext4_directory)
    base = add_layer(ours, "base")
    for round_number in range(5):
        add_layer(theirs, f"child-{round_number}", base)
        with pytest.raises(LayerInUse) as refused:
            ours.remove("base")
        assert refused.value.users == (f"child-{round_number}",)
        theirs.remove(f"child-{round_number}")
    ours.remove("base")
    assert not theirs.exists("base")


def test_removing_many_layers_reads_each_lower_file_once(driver: GraphDriver, add_layer: AddLayer) -> None:
    parent: LayerRef | None = None
    for number in range(40):
        parent = add_layer(driver, f"layer-{number:02}", parent)
    driver.remove("layer-39")
    # The index is there now. Without the files it could not be made again.
    for number in range(39):
        lower = f"{driver.home}/layer-{number:02}/lower"
        if os.path.exists(lower):
            os.unlink(lower)

    with pytest.raises(LayerInUse):
        driver.remove("layer-00")
    for number in reversed(range(39)):
        driver.remove(f"layer-{number:02}")
    assert driver.list_layers() == []
    assert os.listdir(f"{driver.home}/l") == []


def test_removing_unmounts_what_is_still_mounted(driver: GraphDriver, add_layer: AddLayer) -> None:
    add_layer(driver, "layer")
    driver.mount("layer")

    driver.remove("layer")
    driver.reclaim()

    assert mount_points(driver.home) == [driver.home]
    driver.cleanup()
    assert mount_points(driver.home) == []
    assert not driver.exists("layer")


def test_threads_make_and_remove_layers_at_once(driver: GraphDriver, add_layer: AddLayer) -> None:
    base = add_layer(driver, "base", None, {"file": "x"})
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            add_layer(driver, f"layer-{number}", base, {"own": "y"})
            driver.unmount(f"layer-{number}", driver.mount(f"layer-{number}"))
            driver.remove(f"layer-{number}")
            driver.reclaim()
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert driver.list_layers() == ["base"]
    driver.cleanup()
    assert mount_points(driver.home) == []


KILLED_WHILE_IT_MAKES_A_LAYER = """
import os, signal, sys
from hostspec.driver import GraphDriver
from hostspec.values import LayerRef
from hostspec_overlay import open_driver

home, run_root, commits = sys.argv[1:]
driver = GraphDriver("overlay", open_driver(home, run_root, (), ()), home=home, run_root=run_root)
driver.create("killed", LayerRef("base"))
with driver.mounted("killed", read_only=False) as root:
    open(f"{root}/file", "w").close()
    if commits == "no":
        os.kill(os.getpid(), signal.SIGKILL)
driver.commit("killed")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("commits", ["no", "yes"])
def test_a_killed_process_leaves_a_whole_layer_or_none(
    commits: str, driver: GraphDriver, open_overlay: OpenOverlay, add_layer: AddLayer
) -> None:
    add_layer(driver, "base")
    directory = os.path.dirname(driver.home)
    arguments = [driver.home, f"{directory}/run/overlay", commits]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_MAKES_A_LAYER, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL

    next_process = open_overlay(directory)
    next_process.reclaim()

    assert next_process.exists("killed") == (commits == "yes")
    assert mount_points(directory) == []
    driver.cleanup()
    assert os.listdir(f"{driver.home}/tempdirs") == []
    assert len(os.listdir(f"{driver.home}/l")) == (2 if commits == "yes" else 1)
