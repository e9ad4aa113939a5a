"""The life of a layer: made, seen, found again, removed."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate, InvalidRequest, OperationNotSupported, Unknown
from hostspec.idmap import IdMap
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layer_tars import layer_tar
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import count_files, make_tree, read_tree
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.requirements import skip_by_capability
from hostspec.testing.samples import MAPPED, MINE, SMALL, UNMAPPED
from hostspec.testing.tree import Tree, file
from hostspec.values import CreateOptions, LayerRef

__all__ = ["LifeCycle"]

NOBODY: Final = LayerRef("nobody-made-this")

ABOUT_NOBODY: Final[dict[str, Callable[[GraphDriver], object]]] = {
    "mount": lambda driver: driver.mount(NOBODY.layer_id),
    "changes": lambda driver: list(driver.changes(NOBODY)),
    "diff": lambda driver: driver.diff(NOBODY).__enter__(),
    "diff_size": lambda driver: driver.diff_size(NOBODY),
    "disk_usage": lambda driver: driver.disk_usage(NOBODY.layer_id),
    "apply_diff": lambda driver: driver.apply_diff(NOBODY.layer_id, io.BytesIO(bytes(1024))),
    "update_idmap": lambda driver: driver.update_idmap(NOBODY.layer_id, UNMAPPED, MAPPED),
}
"""What is asked of a layer that is not there."""


class LifeCycle(DriverFixtures):
    """What ``create``, ``commit``, ``exists``, ``list_layers``, ``remove`` and ``reclaim`` promise."""

    def test_a_driver_begins_without_layers(self, driver: GraphDriver) -> None:
        assert list(driver.list_layers()) == []
        assert not driver.exists("anything")

    def test_opening_and_asking_writes_nothing(self, driver: GraphDriver) -> None:
        driver.list_layers()
        driver.status()
        driver.exists("anything")

        assert not os.path.isdir(driver.home) or os.listdir(driver.home) == []

    def test_a_committed_layer_exists_and_is_listed(self, driver: GraphDriver) -> None:
        for layer_id in ("one", "two"):
            driver.create(layer_id)
            driver.commit(layer_id)

        assert sorted(driver.list_layers()) == ["one", "two"]
        assert driver.exists("one")

    @pytest.mark.parametrize("layer_id", ["f" * 64, "x", "with.dots", "0"])
    def test_any_file_name_is_a_layer_id(self, driver: GraphDriver, layer_id: str) -> None:
        driver.create(layer_id)
        driver.commit(layer_id)

        assert list(driver.list_layers()) == [layer_id]

    def test_a_staged_layer_is_seen_from_its_commit_on(self, driver: GraphDriver) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        driver.create("staged")
        seen_before = driver.exists("staged"), list(driver.list_layers())
        driver.commit("staged")

        assert seen_before == (False, [])
        assert driver.exists("staged")

    def test_a_sealed_layer_shows_what_was_filled_and_is_still_staged(
        self, driver: GraphDriver, layers_of_mine: Layers
    ) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        driver.create("sealed", options=CreateOptions(read_only=True))
        with driver.mounted("sealed", read_only=False) as root:
            make_tree(root, MINE, UNMAPPED)
        for _ in range(2):
            driver.seal("sealed")
        made = Made(LayerRef("sealed"), MINE, None)

        assert not driver.exists("sealed")
        layers_of_mine.check(made)
        driver.commit("sealed")
        layers_of_mine.check(made)

    def test_a_sealed_layer_that_is_abandoned_leaves_nothing(self, driver: GraphDriver) -> None:
        driver.create("abandoned", options=CreateOptions(read_only=True))
        driver.seal("abandoned")
        driver.remove("abandoned")
        driver.create("abandoned")
        driver.seal("abandoned")
        driver.commit("abandoned")

        assert list(driver.list_layers()) == ["abandoned"]

    def test_a_layer_that_is_not_staged_is_seen_at_once(self, driver: GraphDriver) -> None:
        if driver.capabilities.stages_layers:
            skip_by_capability("stages layers")
        driver.create("direct")

        assert driver.exists("direct")
        assert list(driver.list_layers()) == ["direct"]

    def test_a_staged_layer_that_is_abandoned_leaves_nothing(self, driver: GraphDriver) -> None:
        driver.create("abandoned")
        driver.remove("abandoned")
        driver.create("abandoned")
        driver.commit("abandoned")

        assert list(driver.list_layers()) == ["abandoned"]

    def test_commit_of_a_layer_that_nobody_staged_is_refused(self, driver: GraphDriver) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        with pytest.raises(Unknown):
            driver.commit("never-created")

    def test_closing_gives_up_every_descriptor_and_no_layer(
        self, driver: GraphDriver, layers_of_mine: Layers
    ) -> None:
        made = layers_of_mine.make("kept", MINE)
        driver.create("abandoned")
        for _ in range(2):
            driver.close()

            opened = [os.readlink(f"/proc/self/fd/{each}") for each in _descriptors()]
            assert [path for path in opened if path.startswith(driver.home)] == []
            layers_of_mine.check(made)
        driver.create("made-later", made.layer)
        driver.commit("made-later")
        assert driver.exists("made-later")

    def test_an_id_is_given_once(self, driver: GraphDriver, layers_of_mine: Layers) -> None:
        made = layers_of_mine.make("taken", MINE)

        with pytest.raises(Duplicate):
            driver.create("taken")

        layers_of_mine.check(made)

    def test_an_unknown_parent_is_refused_and_leaves_nothing(self, driver: GraphDriver) -> None:
        with pytest.raises(Unknown):
            driver.create("orphan", NOBODY)

        assert list(driver.list_layers()) == []
        driver.create("orphan")

    def test_a_removed_layer_is_gone_and_its_id_free(
        self, driver: GraphDriver, layers_of_mine: Layers
    ) -> None:
        layers_of_mine.make("removed", MINE.with_entries({"/old": MINE["/file"]}))
        driver.remove("removed")

        assert not driver.exists("removed")
        assert list(driver.list_layers()) == []
        layers_of_mine.check(layers_of_mine.make("removed", MINE))

    def test_removal_can_be_repeated(self, driver: GraphDriver) -> None:
        driver.create("twice")
        driver.commit("twice")

        driver.remove("twice")
        driver.remove("twice")
        driver.remove("never-there")

    def test_removal_and_reclaim_leave_nothing_on_disk(
        self, driver: GraphDriver, layers_of_mine: Layers
    ) -> None:
        left = []
        for _ in range(2):
            layers_of_mine.make("second", MINE, layers_of_mine.make("first", MINE))
            driver.remove("second")
            driver.remove("first")
            driver.reclaim()
            left.append(count_files(driver.home))

        # The first round may leave directories that every later one uses again.
        assert left[1] == left[0]

    def test_a_layer_on_which_others_stand_is_whole_or_refused(
        self, driver: GraphDriver, layers: Layers
    ) -> None:
        below = layers.make("below", SMALL)
        above = layers.make("above", SMALL.without("/b"), below)

        if users := layers.remove_or_say_who_uses("below"):
            assert users == ("above",)
            assert driver.exists("below")
            layers.check(below)
        driver.reclaim()

        layers.check(above)
        driver.remove("above")
        driver.remove("below")
        assert list(driver.list_layers()) == []

    def test_layers_are_found_again_after_reopening(
        self, layers: Layers, open_driver_at: DriverOpener
    ) -> None:
        below = layers.make("below", SMALL)
        above = layers.make("above", SMALL.without("/a"), below)

        reopened = Layers(open_driver_at.again())

        assert sorted(reopened.driver.list_layers()) == ["above", "below"]
        reopened.check(below)
        reopened.check(above)

    def test_what_another_process_stages_is_not_seen_nor_cleared(
        self, driver: GraphDriver, open_driver_at: DriverOpener
    ) -> None:
        if not driver.capabilities.stages_layers:
            skip_by_capability("does not stage layers")
        driver.create("staged")

        other = open_driver_at.again()
        other.reclaim()

        assert list(other.list_layers()) == []
        driver.commit("staged")
        assert other.exists("staged")

    @pytest.mark.parametrize("idmap", [UNMAPPED, MAPPED], ids=["unmapped", "mapped"])
    @pytest.mark.usefixtures("privileged")
    def test_an_empty_layer_is_a_root_directory_of_the_maps_root(
        self, driver: GraphDriver, idmap: IdMap
    ) -> None:
        driver.create("empty", options=CreateOptions(idmap=idmap))
        driver.commit("empty")

        with driver.mounted("empty") as root:
            found = read_tree(root, idmap)
        assert (list(found), found["/"].mode, found["/"].uid, found["/"].gid) == (["/"], 0o755, 0, 0)

    def test_the_umask_of_the_caller_makes_no_difference(self, driver: GraphDriver, layers: Layers) -> None:
        before = os.umask(0o077)
        try:
            made = layers.apply("made", layer_tar(None, SMALL), SMALL)
            driver.create("empty")
            driver.commit("empty")
        finally:
            os.umask(before)

        layers.check(made)
        with driver.mounted("empty") as root:
            assert read_tree(root, UNMAPPED)["/"].mode == 0o755

    def test_a_child_begins_as_its_parent(self, driver: GraphDriver, layers: Layers) -> None:
        parent = layers.make("parent", SMALL, idmap=MAPPED)
        # Whatever map is asked for: changing owners is another operation.
        driver.create("child", parent.layer, CreateOptions(idmap=UNMAPPED))
        driver.commit("child")

        with driver.mounted("child") as root:
            read_tree(root, MAPPED).check(SMALL)

    @pytest.mark.parametrize("made_for", ["image", "container"])
    def test_what_is_written_to_a_child_shows_there_alone(self, layers: Layers, made_for: str) -> None:
        parent = layers.make("parent", SMALL)
        sibling = layers.make("sibling", SMALL, parent)
        child = layers.make(
            "child",
            SMALL.without("/link").with_entries({"/a/file": file(b"changed", uid=9), "/new": file(b"new")}),
            parent,
            read_only=made_for == "image",
        )

        for each in (child, parent, sibling):
            layers.check(each)

    def test_a_chain_of_twelve_layers_shows_all_of_them(self, layers: Layers) -> None:
        made, tree = None, Tree({})
        for number in range(12):
            tree = tree.with_entries({f"/file-{number}": file(b"%d" % number, uid=number)})
            if number > 5:
                tree = tree.without(f"/file-{number - 5}")
            made = layers.make(f"layer-{number}", tree, made)

        assert made is not None
        layers.check(made)

    def test_a_limit_that_cannot_be_kept_is_refused(self, driver: GraphDriver) -> None:
        if driver.capabilities.limits_size:
            skip_by_capability("limits the size of layers")
        with pytest.raises(OperationNotSupported):
            driver.create("limited", options=CreateOptions(size=1 << 20))

        assert list(driver.list_layers()) == []
        driver.create("limited")

    def test_an_unknown_storage_option_is_refused(self, driver: GraphDriver) -> None:
        with pytest.raises((InvalidRequest, OperationNotSupported)):
            driver.create("odd", options=CreateOptions(others=(("no-such-option", "1"),)))

        assert list(driver.list_layers()) == []

    def test_layers_can_be_made_by_several_threads_at_once(self, layers: Layers) -> None:
        parent = layers.make("parent", SMALL)

        with ThreadPoolExecutor(4) as threads:
            children = list(
                threads.map(lambda number: layers.make(f"child-{number}", SMALL, parent), range(8))
            )

        for child in children:
            layers.check(child)

    @pytest.mark.parametrize("operation", ABOUT_NOBODY)
    def test_an_unknown_layer_is_called_unknown(self, driver: GraphDriver, operation: str) -> None:
        with pytest.raises(Unknown) as refusal:
            ABOUT_NOBODY[operation](driver)

        assert refusal.value.name == NOBODY.layer_id


def _descriptors() -> list[str]:
    """Return the numbers of this process's descriptors, as far as they are still open."""
    names = os.listdir("/proc/self/fd")
    return [name for name in names if os.path.lexists(f"/proc/self/fd/{name}")]
