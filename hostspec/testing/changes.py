"""``changes``: which paths differ between two layers, and how."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import ACL_ACCESS, CAPABILITY
from hostspec.testing.layer_tars import with_layer
from hostspec.testing.layers import Layers
from hostspec.testing.on_disk import change_tree
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import MAPPED, SMALL, UNMAPPED
from hostspec.testing.tree import MTIME_NS, Entry, Tree, character_device, directory, file, symlink

__all__ = ["Changes"]

EVERYTHING = SMALL.with_entries(
    {
        "/d": directory(),
        "/d/one": file(b"one"),
        "/d/two": file(b"two"),
        "/d/below": directory(uid=1),
        "/d/below/three": file(b"three"),
        "/null": character_device(1, 3),
    }
)


class Changes(DriverFixtures):
    """What a layer changes is said completely, once, and in order."""

    @pytest.mark.parametrize("idmap", [UNMAPPED, MAPPED], ids=["unmapped", "mapped"])
    def test_each_layer_of_a_chain_tells_its_changes(self, layers: Layers, idmap: IdMap) -> None:
        chain = layers.chain(parent_map=idmap)

        assert layers.changes(chain.bottom, None) == chain.bottom.tree.changes_from(None)
        for above, below in ((chain.middle, chain.bottom), (chain.top, chain.middle)):
            assert layers.changes(above, below) == above.tree.changes_from(below.tree)

    def test_layers_that_are_further_apart_can_be_compared(self, layers: Layers) -> None:
        chain = layers.chain()

        assert layers.changes(chain.top, chain.bottom) == chain.top.tree.changes_from(chain.bottom.tree)
        assert layers.changes(chain.top, None) == chain.top.tree.changes_from(None)

    def test_owners_are_compared_as_a_container_sees_them(self, layers: Layers) -> None:
        chain = layers.chain(parent_map=UNMAPPED, template_map=MAPPED)

        assert layers.changes(chain.top, chain.middle) == chain.top.tree.changes_from(chain.middle.tree)

    def test_a_layer_that_only_changes_the_map_has_no_changes(self, layers: Layers) -> None:
        below = layers.make("below", EVERYTHING)
        above = layers.make("above", EVERYTHING, below, idmap=MAPPED)

        assert layers.changes(above, below) == []

    def test_an_untouched_layer_has_no_changes(self, layers: Layers) -> None:
        below = layers.make("below", EVERYTHING)

        assert layers.changes(layers.make("above", EVERYTHING, below), below) == []

    @pytest.mark.parametrize(
        ("gone", "entries"),
        [
            pytest.param(["/b"], {}, id="a-file-is-deleted"),
            pytest.param(["/d"], {}, id="a-directory-is-deleted"),
            pytest.param(["/d/below/three"], {}, id="a-file-far-down-is-deleted"),
            pytest.param([], {"/b": file(b"longer than before", mode=0o600, uid=1, gid=2)}, id="content"),
            pytest.param([], {"/b": file(b"b", mode=0o640, uid=1, gid=2)}, id="mode"),
            pytest.param([], {"/b": file(b"b", mode=0o4600, uid=1, gid=2)}, id="set-id"),
            pytest.param([], {"/b": file(b"b", mode=0o600, uid=7, gid=2)}, id="uid"),
            pytest.param([], {"/b": file(b"b", mode=0o600, uid=1, gid=7)}, id="gid"),
            pytest.param([], {"/b": file(b"b", mode=0o600, uid=1, gid=2, mtime_ns=MTIME_NS + 1)}, id="time"),
            pytest.param(
                [], {"/b": file(b"b", mode=0o600, uid=1, gid=2, xattrs={"user.n": b"1"})}, id="xattr"
            ),
            pytest.param(
                [],
                {"/b": file(b"b", mode=0o600, uid=1, gid=2, xattrs={CAPABILITY: b"permitted=0x1"})},
                id="capability",
            ),
            pytest.param(
                [],
                {
                    "/d/one": file(
                        b"one", mode=0o644, xattrs={ACL_ACCESS: b"u::rw-,u:1:r--,g::r--,m::r--,o::r--"}
                    )
                },
                id="acl",
            ),
            pytest.param([], {"/d/below": directory(uid=5)}, id="owner-of-a-directory"),
            pytest.param([], {"/d/below": directory(uid=1, mode=0o700)}, id="mode-of-a-directory"),
            pytest.param([], {"/link": symlink("elsewhere", uid=5, gid=6)}, id="target-of-a-link"),
            pytest.param([], {"/null": character_device(1, 5)}, id="number-of-a-device"),
            pytest.param([], {"/d/new": directory(), "/d/new/x": file(b"x")}, id="a-directory-is-added"),
            pytest.param([], {"/d": file(b"no directory any more")}, id="a-file-replaces-a-directory"),
            pytest.param([], {"/b": directory(), "/b/in": file(b"in")}, id="a-directory-replaces-a-file"),
            pytest.param([], {"/d/one": symlink("two")}, id="a-link-replaces-a-file"),
        ],
    )
    def test_one_change_is_told(
        self, layers: Layers, gone: Collection[str], entries: Mapping[str, Entry]
    ) -> None:
        below = layers.make("below", EVERYTHING)
        above = layers.make("above", EVERYTHING.without(*gone).with_entries(entries), below)

        assert layers.changes(above, below) == above.tree.changes_from(below.tree)

    @pytest.mark.parametrize(
        "kept", [(), ("/d/one",), ("/d/below", "/d/below/three")], ids=["nothing", "a-file", "a-directory"]
    )
    def test_a_directory_made_anew_is_compared_name_by_name(
        self, layers: Layers, kept: Collection[str]
    ) -> None:
        below = layers.make("below", EVERYTHING)
        rest = {path: EVERYTHING[path] for path in kept}
        anew = EVERYTHING.without("/d").with_entries({"/d": directory(uid=3), "/d/new": file(b"n"), **rest})

        above = layers.make("above", anew, below, recreated={"/d"})

        assert layers.changes(above, below) == anew.changes_from(EVERYTHING)

    def test_a_file_deleted_and_made_anew_is_modified(self, layers: Layers) -> None:
        below = layers.make("below", EVERYTHING)
        anew = EVERYTHING.with_entries({"/b": file(b"made anew")})

        above = layers.make("above", anew, below, recreated={"/b"})

        assert [str(change) for change in layers.changes(above, below)] == ["Modify /b"]

    @pytest.mark.parametrize("gone", ["/d", "/d/below", "/d/below/three"])
    def test_changes_of_a_running_container_are_told(self, layers: Layers, gone: str) -> None:
        below = layers.make("below", EVERYTHING)
        container = layers.make("container", EVERYTHING, below, read_only=False)
        written = EVERYTHING.without(gone).with_entries(
            {"/b": file(b"written just now"), "/new": file(b"new")}
        )

        root = layers.driver.mount(container.layer_id)
        try:
            change_tree(root, EVERYTHING, written, UNMAPPED)
            while_it_runs = layers.changes(container, below)
            packed = layers.diff(container, below)
        finally:
            layers.driver.unmount(container.layer_id, root)

        assert while_it_runs == written.changes_from(EVERYTHING)
        assert layers.changes(container, below) == while_it_runs
        unpacked = with_layer(EVERYTHING, packed)
        unpacked.check(written.with_root_time(unpacked["/"].mtime_ns))

    def test_a_rename_is_a_deletion_and_an_addition(self, layers: Layers) -> None:
        below = layers.make("below", EVERYTHING)
        renamed = Tree({path.replace("/d/below", "/moved"): entry for path, entry in EVERYTHING.items()})

        above = layers.make("above", renamed, below)

        told = [str(change) for change in layers.changes(above, below)]
        assert told == ["Modify /d", "Delete /d/below", "Add /moved", "Add /moved/three"]

    def test_a_deletion_undone_by_the_next_layer_is_an_addition(self, layers: Layers) -> None:
        bottom = layers.make("bottom", EVERYTHING)
        middle = layers.make("middle", EVERYTHING.without("/d"), bottom)
        top = layers.make("top", EVERYTHING, middle)

        assert layers.changes(top, middle) == EVERYTHING.changes_from(middle.tree)
        assert layers.changes(top, bottom) == []
