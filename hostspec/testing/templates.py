"""``create_from_template``: a layer like another one, under another ID map."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import Duplicate, IdNotMapped, Unknown
from hostspec.idmap import IdMap
from hostspec.testing.driver_opener import DriverOpener
from hostspec.testing.layer_tars import with_layer
from hostspec.testing.layers import Layers, Made
from hostspec.testing.on_disk import count_files
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.requirements import skip_by_capability
from hostspec.testing.samples import ANOTHER, GAPS, HIGHEST, MAPPED, SMALL, UNMAPPED
from hostspec.testing.tree import Tree, file
from hostspec.values import LayerRef, TemplateCost

__all__ = ["Templates"]

MAPS_OF_PARENT_TEMPLATE_AND_COPY: Final = [
    pytest.param(UNMAPPED, UNMAPPED, MAPPED, id="none-none-to-mapped"),
    pytest.param(UNMAPPED, UNMAPPED, GAPS, id="none-none-to-gaps"),
    pytest.param(UNMAPPED, UNMAPPED, HIGHEST, id="none-none-to-highest"),
    pytest.param(UNMAPPED, UNMAPPED, UNMAPPED, id="none-none-to-none"),
    pytest.param(MAPPED, MAPPED, UNMAPPED, id="mapped-mapped-to-none"),
    pytest.param(MAPPED, MAPPED, ANOTHER, id="mapped-mapped-to-another"),
    pytest.param(MAPPED, MAPPED, MAPPED, id="mapped-mapped-to-mapped"),
    pytest.param(UNMAPPED, MAPPED, ANOTHER, id="none-mapped-to-another"),
    pytest.param(MAPPED, UNMAPPED, ANOTHER, id="mapped-none-to-another"),
    pytest.param(MAPPED, ANOTHER, HIGHEST, id="mapped-another-to-highest"),
    pytest.param(UNMAPPED, MAPPED, UNMAPPED, id="none-mapped-to-none"),
]
every_kind_of_maps = pytest.mark.parametrize(
    ("parent_map", "template_map", "idmap"), MAPS_OF_PARENT_TEMPLATE_AND_COPY[::4]
)
every_combination_of_maps = pytest.mark.parametrize(
    ("parent_map", "template_map", "idmap"), MAPS_OF_PARENT_TEMPLATE_AND_COPY
)
TOO_SMALL: Final = IdMap([(0, 100_000, 100)], [(0, 100_000, 100)])
JUST_LARGE_ENOUGH: Final = IdMap([(0, 100_000, 1_001)], [(0, 100_000, 1_001)])


class Templates(DriverFixtures):
    """The rules of the operation, on three layers of which each has files of its own."""

    @every_combination_of_maps
    def test_a_copy_shows_its_template_under_the_wanted_map(
        self, layers: Layers, parent_map: IdMap, template_map: IdMap, idmap: IdMap
    ) -> None:
        template = layers.chain(parent_map=parent_map, template_map=template_map).top

        copy = layers.copy("copy", template, idmap)

        layers.check(copy)

    @every_kind_of_maps
    def test_a_copy_has_no_changes_to_its_template(
        self, layers: Layers, parent_map: IdMap, template_map: IdMap, idmap: IdMap
    ) -> None:
        template = layers.chain(parent_map=parent_map, template_map=template_map).top

        copy = layers.copy("copy", template, idmap)

        assert layers.changes(copy, template) == []

    @every_combination_of_maps
    def test_a_copy_has_its_templates_changes_to_the_parent(
        self, layers: Layers, parent_map: IdMap, template_map: IdMap, idmap: IdMap
    ) -> None:
        chain = layers.chain(parent_map=parent_map, template_map=template_map)

        copy = layers.copy("copy", chain.top, idmap)

        found = layers.changes(copy, chain.middle)
        assert found == chain.top.tree.changes_from(chain.middle.tree)
        assert found == layers.changes(chain.top, chain.middle)

    @pytest.mark.parametrize("idmap", [MAPPED, UNMAPPED], ids=["mapped", "unmapped"])
    def test_the_diff_of_a_copy_says_what_its_templates_says(self, layers: Layers, idmap: IdMap) -> None:
        chain = layers.chain()

        copy = layers.copy("copy", chain.top, idmap)

        packed = layers.diff(copy, chain.middle)
        with_layer(chain.middle.tree, packed).check(copy.tree)
        assert layers.driver.diff_size(copy.layer, chain.middle.layer) == layers.driver.diff_size(
            chain.top.layer, chain.middle.layer
        )

    def test_the_template_is_not_touched(self, layers: Layers) -> None:
        chain = layers.chain()
        before, packed = layers.times(chain.top), layers.diff(chain.top, chain.middle)

        layers.copy("copy", chain.top, MAPPED)

        after = layers.times(chain.top)
        assert after.keys() == before.keys()
        assert [path for path in after if after[path].is_touched_since(before[path])] == []
        assert layers.diff(chain.top, chain.middle) == packed
        for each in chain:
            layers.check(each)

    def test_a_mounted_template_can_be_copied(self, layers: Layers) -> None:
        template = layers.chain().top
        driver = layers.driver
        shared = driver.mount(template.layer_id)
        try:
            with driver.mounted(template.layer_id) as private, open(f"{private}/z", "rb") as held:
                copy = layers.copy("copy", template, MAPPED)
                assert held.read() == template.tree["/z"].content
            with open(f"{shared}/bin/ping", "rb") as still_there:
                assert still_there.read() == template.tree["/bin/ping"].content
        finally:
            driver.unmount(template.layer_id, shared)

        layers.check(copy)
        layers.check(template)

    @pytest.mark.parametrize("made_for", ["image", "container"])
    def test_a_copy_is_made_for_images_and_containers(self, layers: Layers, made_for: str) -> None:
        layers.check(layers.copy("copy", layers.chain().top, MAPPED, read_only=made_for == "image"))

    def test_a_copy_shows_in_the_list_as_one_layer(self, driver: GraphDriver, layers: Layers) -> None:
        layers.copy("copy", layers.chain().top, MAPPED)

        assert sorted(driver.list_layers()) == ["bottom", "copy", "middle", "top"]
        assert driver.exists("copy")

    def test_a_template_without_parent_can_be_copied(self, layers: Layers) -> None:
        template = layers.chain().bottom

        copy = layers.copy("copy", template, MAPPED)

        layers.check(copy)
        assert layers.changes(copy, template) == []
        assert layers.changes(copy, None) == template.tree.changes_from(None)

    def test_a_template_without_changes_of_its_own_can_be_copied(self, layers: Layers) -> None:
        middle = layers.chain().middle
        template = layers.make("unchanged", middle.tree, middle)

        copy = layers.copy("copy", template, MAPPED)

        layers.check(copy)
        assert layers.changes(copy, middle) == []

    def test_a_copy_costs_what_the_driver_says(self, driver: GraphDriver, layers: Layers) -> None:
        cost = driver.template_cost()
        tells_what_is_shared = driver.implements("disk_usage") or driver.capabilities.layers_are_whole
        if not tells_what_is_shared and cost is not TemplateCost.CONTENT:
            skip_by_capability("does not tell what layers share")
        content = os.urandom(4 << 20)
        template = layers.make("template", SMALL.with_entries({"/large": file(content)}))

        copy = layers.copy("copy", template, MAPPED)

        occupied = driver.disk_usage(copy.layer_id).exclusive_bytes
        took_no_content = occupied < len(content)
        assert took_no_content or cost is TemplateCost.CONTENT
        # The fallback may do better than is known beforehand.
        if driver.implements("create_from_template"):
            assert not took_no_content or cost is not TemplateCost.CONTENT

    def test_copies_with_several_maps_stand_beside_each_other(self, layers: Layers) -> None:
        template = layers.chain().top

        copies = [
            layers.copy(f"copy-{number}", template, idmap)
            for number, idmap in enumerate((MAPPED, ANOTHER, GAPS))
        ]

        for copy in (*copies, template):
            layers.check(copy)

    def test_a_copy_can_be_copied(self, layers: Layers) -> None:
        chain = layers.chain()
        first = layers.copy("first", chain.top, MAPPED)

        second = layers.copy("second", first, ANOTHER)

        layers.check(second)
        assert layers.changes(second, chain.middle) == layers.changes(chain.top, chain.middle)

    def test_a_container_on_a_copy_has_only_its_own_changes(self, layers: Layers) -> None:
        copy = layers.copy("copy", layers.chain().top, MAPPED)
        written = copy.tree.without("/z").with_entries(
            {"/opt/new": file(b"new", uid=1_000), "/etc/three": file(b"its own now", uid=1)}
        )

        container = layers.make("container", written, copy, read_only=False)

        layers.check(container)
        layers.check(copy)
        assert layers.changes(container, copy) == written.changes_from(copy.tree)

    def test_writing_to_a_copy_leaves_the_template_alone(self, layers: Layers) -> None:
        template = layers.chain().top
        copy = layers.copy("copy", template, MAPPED, read_only=False)
        with layers.driver.mounted(copy.layer_id, read_only=False) as root:
            for path in ("/bin/sh", "/z", "/etc/three"):
                with open(root + path, "r+b") as opened:
                    opened.write(b"OVERWRITTEN")

        layers.check(template)

    def test_a_template_with_copies_is_whole_or_its_removal_refused(
        self, driver: GraphDriver, layers: Layers
    ) -> None:
        template = layers.chain().top
        copy = layers.copy("copy", template, MAPPED)

        if users := layers.remove_or_say_who_uses(template.layer_id):
            assert users == (copy.layer_id,)
            layers.check(template)
        driver.reclaim()
        layers.check(copy)

        driver.remove(copy.layer_id)
        driver.remove(template.layer_id)
        assert sorted(driver.list_layers()) == ["bottom", "middle"]

    def test_a_copy_is_found_again_after_reopening(
        self, layers: Layers, open_driver_at: DriverOpener
    ) -> None:
        chain = layers.chain()
        copy = layers.copy("copy", chain.top, MAPPED)
        users = layers.remove_or_say_who_uses(chain.middle.layer_id)

        reopened = Layers(open_driver_at.again())

        assert reopened.driver.exists("copy")
        reopened.check(copy)
        assert reopened.remove_or_say_who_uses(chain.middle.layer_id) == users

    def test_everyone_who_stands_on_a_template_is_named_or_unharmed(self, layers: Layers) -> None:
        template = layers.chain().top
        standing = [
            layers.copy("copy", template, MAPPED),
            layers.copy("another-copy", template, ANOTHER),
            layers.make("child", template.tree.without("/z"), template),
        ]

        users = layers.remove_or_say_who_uses(template.layer_id)
        for user in users:
            layers.driver.remove(user)
        if users:
            # Those were all: nothing else was in the way.
            assert layers.remove_or_say_who_uses(template.layer_id) == ()
        layers.driver.reclaim()

        for each in standing:
            if each.layer_id not in users:
                layers.check(each)

    @pytest.mark.parametrize("layer_id", ["top", "middle"])
    def test_a_copy_under_an_id_that_is_taken_is_refused(self, layers: Layers, layer_id: str) -> None:
        chain = layers.chain()
        with pytest.raises(Duplicate):
            layers.driver.create_from_template(layer_id, chain.top.layer, chain.middle.layer)

        for each in chain:
            layers.check(each)

    def test_an_unknown_template_is_refused_and_leaves_nothing(
        self, driver: GraphDriver, layers: Layers
    ) -> None:
        parent = layers.make("parent", SMALL)
        with pytest.raises(Unknown):
            driver.create_from_template("copy", LayerRef("nobody-made-this"), parent.layer)

        assert list(driver.list_layers()) == ["parent"]
        driver.create("copy")

    @pytest.mark.parametrize("owner", ["bottom", "middle", "top"])
    def test_an_id_outside_the_map_names_the_file(self, layers: Layers, owner: str) -> None:
        strange = {"/a/strange": file(uid=5_000)}
        trees = {name: SMALL.with_entries({f"/{name}": file()}) for name in ("bottom", "middle", "top")}
        made: Made | None = None
        seen = Tree({})
        for name, tree in trees.items():
            seen = Tree({**dict(seen.items()), **dict(tree.items()), **(strange if name == owner else {})})
            made = layers.make(name, _without_ids_from(seen, 100, but="/a/strange"), made)

        assert made is not None
        with pytest.raises(IdNotMapped) as refusal:
            layers.copy("copy", made, TOO_SMALL)
        assert (refusal.value.path.strip("/"), refusal.value.number) == ("a/strange", 5_000)

    def test_what_the_template_deleted_need_not_be_in_the_map(self, layers: Layers) -> None:
        below = layers.make("below", SMALL.with_entries({"/a/strange": file(uid=5_000)}))
        template = layers.make("template", SMALL.with_entries({"/new": file(b"new")}), below)
        layers.check(layers.copy("copy", template, JUST_LARGE_ENOUGH))

    def test_a_copy_that_fails_half_way_leaves_nothing(self, driver: GraphDriver, layers: Layers) -> None:
        template = layers.chain().top
        left = []
        for _ in range(2):
            with pytest.raises(IdNotMapped):
                layers.copy("copy", template, TOO_SMALL)
            assert sorted(driver.list_layers()) == ["bottom", "middle", "top"]
            assert not driver.exists("copy")
            left.append(count_files(driver.home))

        # The first failure may leave directories that every later one uses again.
        assert left[1] == left[0]
        layers.check(layers.copy("copy", template, MAPPED))

    def test_squashing_gives_ids_outside_the_map_to_the_nearest_inside(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)
        tree = SMALL.with_entries(
            {"/strange": file(b"strange", uid=5_000, gid=99), "/b": file(uid=50, gid=200)}
        )
        template = layers.make("template", tree, below)

        copy = layers.copy("copy", template, TOO_SMALL, squash=True)

        squashed = {
            path: entry.changed(uid=min(entry.uid, 99), gid=min(entry.gid, 99))
            for path, entry in tree.items()
        }
        layers.check(copy._replace(tree=Tree(squashed)))

    def test_several_threads_can_copy_one_template(self, layers: Layers) -> None:
        template = layers.chain().top

        def copy(number: int) -> Made:
            return layers.copy(f"copy-{number}", template, (MAPPED, ANOTHER)[number % 2])

        with ThreadPoolExecutor(4) as threads:
            copies = list(threads.map(copy, range(4)))

        for each in copies:
            layers.check(each)

    def test_a_copy_asked_to_be_made_by_fallback_is_the_same(self, layers: Layers) -> None:
        chain = layers.chain()

        copy = layers.copy("copy", chain.top, MAPPED, native=False)

        layers.check(copy)
        assert layers.changes(copy, chain.middle) == layers.changes(chain.top, chain.middle)


def _without_ids_from(tree: Tree, lowest: int, *, but: str) -> Tree:
    return tree.without(*(path for path, entry in tree.items() if path != but and entry.uid >= lowest))
