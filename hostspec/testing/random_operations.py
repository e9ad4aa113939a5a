"""Random operations on a driver and on a model in memory, compared tree by tree."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hostspec.errors import LayerInUse
from hostspec.idmap import IdMap
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layer_tars import with_layer
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import change_tree
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.random_trees import DIRECTORIES, IDS, LEAVES, NAMES, trees
from hostspec.testing.samples import ANOTHER, MAPPED, SCATTERED, UNMAPPED
from hostspec.testing.tree import Kind, Tree

__all__ = ["RandomOperations"]

MAPS: Final = st.sampled_from([UNMAPPED, MAPPED, ANOTHER, SCATTERED])
STEPS: Final = 12
"""Operations in one history."""


class RandomOperations(DriverFixtures):
    """What nobody thought of, said by Hypothesis as the shortest history that goes wrong."""

    random_histories: ClassVar[int] = 8
    """How many histories of operations to try."""

    def test_random_operations_do_what_a_model_in_memory_does(
        self, layers: Layers, open_driver_at: DriverOpener
    ) -> None:
        directory = os.path.dirname(layers.driver.home)
        numbers = iter(range(1 << 30))

        def history() -> _History:
            place = os.path.join(directory, f"history-{next(numbers)}")
            os.mkdir(place)
            return _History(Layers(open_driver_at.elsewhere(place)), open_driver_at.again)

        run_state_machine_as_test(
            history,  # type: ignore[arg-type]
            settings=settings(
                max_examples=self.random_histories,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
                # To explain a failure takes longer than to find and to shorten it.
                phases=[phase for phase in settings().phases if phase is not Phase.explain],
            ),
        )


@st.composite
def _changed(draw: st.DrawFn, tree: Tree) -> Tree:
    """Return a tree in which something was added, deleted, replaced or given away."""
    linked = {path for group in tree.links for path in group}
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["add", "add", "delete", "own", "directory", "link"])):
            case "delete":
                tree = tree.without(*draw(st.lists(st.sampled_from([*tree][1:] or ["/no"]), max_size=1)))
            case "own":
                path = draw(st.sampled_from([path for path in tree if path not in linked]))
                owned = tree[path].changed(uid=draw(IDS), gid=draw(IDS))
                tree = Tree({**dict(tree.items()), path: owned}, links=tree.links)
            case kind:
                tree = draw(_with_more(tree, kind))
    return tree


@st.composite
def _with_more(draw: st.DrawFn, tree: Tree, kind: str) -> Tree:
    parent = draw(st.sampled_from([path for path, entry in tree.items() if entry.kind is Kind.DIRECTORY]))
    path = f"{parent.rstrip('/')}/{draw(NAMES)}"
    if kind == "link":
        # Of a file that is new: a driver need not keep the links of a file of the layer below.
        group = [path, f"{path}-2", f"{path}-3"]
        entry = draw(LEAVES)
        return tree.without(*group).with_entries(dict.fromkeys(group, entry), links=[group])
    if kind == "directory":
        return tree if path in tree else tree.with_entries({path: draw(DIRECTORIES)})
    return tree.without(path).with_entries({path: draw(LEAVES)})


class _History(RuleBasedStateMachine):
    """One home, and what should be in it."""

    def __init__(self, layers: Layers, reopen: Callable[[], object]) -> None:
        super().__init__()
        self._layers = layers
        self._reopen = reopen
        self._made: dict[str, Made] = {}
        self._stood_on: set[str] = set()
        self._writable: set[str] = set()
        self._numbers = iter(range(1 << 30))

    @rule(data=st.data(), idmap=MAPS, read_only=st.booleans())
    def make_a_first_layer(self, data: st.DataObject, idmap: IdMap, read_only: bool) -> None:  # noqa: FBT001
        made = self._layers.make(self._new_id(), data.draw(trees()), idmap=idmap, read_only=read_only)
        self._keep(made)
        if not read_only:
            self._writable.add(made.layer_id)

    @precondition(lambda self: self._made)
    @rule(data=st.data(), idmap=MAPS, read_only=st.booleans())
    def make_a_child(self, data: st.DataObject, idmap: IdMap, read_only: bool) -> None:  # noqa: FBT001
        parent = self._any(data)
        tree = data.draw(_changed(parent.tree))
        directories = [path for path, entry in parent.tree.items() if entry.kind is Kind.DIRECTORY][1:]
        recreated = data.draw(st.sets(st.sampled_from(directories), max_size=1)) if directories else ()
        made = self._layers.make(
            self._new_id(), tree, parent, idmap=idmap, recreated=recreated, read_only=read_only
        )
        self._keep(made)
        if not read_only:
            self._writable.add(made.layer_id)

    @precondition(lambda self: self._made)
    @rule(data=st.data(), idmap=MAPS)
    def copy_a_template(self, data: st.DataObject, idmap: IdMap) -> None:
        template = self._any(data)
        # A parent that was removed is unknown, also where the layers on it live on.
        template = template._replace(parent=self._parent_of(template))
        copy = self._layers.copy(self._new_id(), template, idmap)
        self._stood_on.add(template.layer_id)
        self._keep(copy)
        assert self._layers.changes(copy, template) == []

    @precondition(lambda self: self._free())
    @rule(data=st.data())
    def write_to_a_layer(self, data: st.DataObject) -> None:
        made = self._made[data.draw(st.sampled_from(self._free()))]
        tree = data.draw(_changed(made.tree))
        with self._layers.driver.mounted(made.layer_id, read_only=False) as root:
            change_tree(root, made.tree, tree, made.idmap)
        self._changed_to(made, tree)

    @precondition(lambda self: self._free())
    @rule(data=st.data(), name=NAMES)
    def rename_a_file(self, data: st.DataObject, name: str) -> None:
        made = self._made[data.draw(st.sampled_from(self._free()))]
        linked = {path for group in made.tree.links for path in group}
        movable = [
            path
            for path, entry in made.tree.items()
            if entry.kind is not Kind.DIRECTORY and path not in linked
        ]
        new = f"/{name}"
        there = made.tree.get(new)
        if not movable or new in linked or (there is not None and there.kind is Kind.DIRECTORY):
            return
        old = data.draw(st.sampled_from(movable))
        tree = made.tree.without(old).with_entries({new: made.tree[old]})
        with self._layers.driver.mounted(made.layer_id, read_only=False) as root:
            os.rename(root + old, root + new)
            # The times of the directories.
            change_tree(root, tree, tree, made.idmap)
        self._changed_to(made, tree)

    @precondition(lambda self: self._made)
    @rule(data=st.data())
    def compare(self, data: st.DataObject) -> None:
        one, other = self._any(data), self._any(data)
        if one.layer_id != other.layer_id:
            self._check_changes(one, other)
        self._check_changes(one, self._parent_of(one))

    @precondition(lambda self: self._made)
    @rule(data=st.data(), idmap=MAPS)
    def pack_and_unpack(self, data: st.DataObject, idmap: IdMap) -> None:
        source = self._any(data)
        below = self._parent_of(source)
        packed = self._layers.diff(source, below)
        tree = with_layer(below.tree if below else None, packed)
        self._keep(self._layers.apply(self._new_id(), packed, tree, below, idmap=idmap))

    @precondition(lambda self: self._made)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        made = self._any(data)
        with suppress(LayerInUse):
            self._layers.driver.remove(made.layer_id)
            del self._made[made.layer_id]

    @rule()
    def reclaim_and_reopen(self) -> None:
        self._layers.driver.reclaim()
        self._layers = Layers(self._reopen())  # type: ignore[arg-type]

    @invariant()
    def the_layers_are_those_of_the_model(self) -> None:
        assert sorted(self._layers.driver.list_layers()) == sorted(self._made)

    def teardown(self) -> None:
        for made in self._made.values():
            self._layers.check(made)

    def _changed_to(self, made: Made, tree: Tree) -> None:
        self._made[made.layer_id] = changed = made._replace(tree=tree)
        self._check_changes(changed, self._parent_of(changed))

    def _check_changes(self, made: Made, older: Made | None) -> None:
        assert self._layers.changes(made, older) == made.tree.changes_from(older.tree if older else None)

    def _parent_of(self, made: Made) -> Made | None:
        """Return a layer's parent, unless it was removed."""
        return made.parent if made.parent and made.parent.layer_id in self._made else None

    def _any(self, data: st.DataObject) -> Made:
        return self._made[data.draw(st.sampled_from(sorted(self._made)))]

    def _free(self) -> list[str]:
        """Return the layers that may be written: not made for an image, and nothing was made from them."""
        return sorted((self._made.keys() & self._writable) - self._stood_on)

    def _keep(self, made: Made) -> None:
        if made.parent is not None:
            self._stood_on.add(made.parent.layer_id)
        self._made[made.layer_id] = made

    def _new_id(self) -> str:
        return f"layer-{next(self._numbers)}"
