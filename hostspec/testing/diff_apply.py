"""``diff``, ``diff_size`` and ``apply_diff``: layers as tars, out and in."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import io
import os
import tarfile

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import IdNotMapped
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_table
from hostspec.testing.layer_tars import layer_tar, member_names, with_layer
from hostspec.testing.layers import Chain, Layers
from hostspec.testing.on_disk import read_tree
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import ANOTHER, BOTTOM, GAPS, HIGHEST, MAPPED, MIDDLE, SMALL, TOP, UNMAPPED
from hostspec.testing.tree import Kind, Tree, directory, file, socket
from hostspec.values import ApplyOptions, CreateOptions, Progress

__all__ = ["DiffApply"]

every_map = pytest.mark.parametrize(
    "idmap", [UNMAPPED, MAPPED, GAPS, HIGHEST], ids=["unmapped", "mapped", "gaps", "highest"]
)


class DiffApply(DriverFixtures):
    """What is packed means the layer, and what is unpacked becomes it, whatever the maps."""

    @every_map
    def test_the_diff_of_each_layer_means_its_tree(self, layers: Layers, idmap: IdMap) -> None:
        chain = layers.chain(parent_map=idmap)

        for made in chain:
            packed = layers.diff(made, made.parent)
            _check_meaning(packed, made.parent.tree if made.parent else Tree({}), made.tree)

    def test_the_diff_between_layers_with_different_maps_has_container_ids(self, layers: Layers) -> None:
        chain = layers.chain(parent_map=MAPPED, template_map=ANOTHER)

        packed = layers.diff(chain.top, chain.middle)

        _check_meaning(packed, MIDDLE, TOP)

    def test_a_diff_has_only_what_changed(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)
        tree = SMALL.without("/link").with_entries({"/a/new": file(b"new")})
        above = layers.make("above", tree, below)

        names = {name.strip("/") for name in member_names(layers.diff(above, below))} - {"", "."}

        assert names == {"a", "a/new", ".wh.link"}

    def test_a_diff_between_distant_layers_has_all_that_changed(self, layers: Layers) -> None:
        chain = layers.chain()

        packed = layers.diff(chain.top, chain.bottom)

        _check_meaning(packed, BOTTOM, TOP)

    def test_a_diff_is_the_same_bytes_each_time(self, layers: Layers) -> None:
        chain = layers.chain()

        assert layers.diff(chain.top, chain.middle) == layers.diff(chain.top, chain.middle)

    def test_the_diff_of_nothing_is_an_empty_tar(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)

        packed = layers.diff(layers.make("above", SMALL, below), below)

        assert {name.strip("/") for name in member_names(packed)} <= {"", "."}

    def test_a_diff_need_not_be_read_to_its_end(self, layers: Layers) -> None:
        chain = layers.chain()

        mounted = mount_table()
        with layers.driver.diff(chain.bottom.layer) as stream:
            assert len(stream.read(100)) == 100

        assert mount_table() == mounted
        layers.driver.remove(chain.top.layer_id)

    def test_diff_size_is_the_size_of_the_files_in_the_diff(self, layers: Layers) -> None:
        chain = layers.chain()

        for made in chain:
            with tarfile.open(fileobj=io.BytesIO(layers.diff(made, made.parent))) as archive:
                in_diff = sum(member.size + _target_size(member) for member in archive)
            told = layers.driver.diff_size(made.layer, made.parent.layer if made.parent else None)
            assert told == in_diff

    def test_a_socket_is_left_out_of_a_diff(self, layers: Layers) -> None:
        below = layers.make("below", SMALL)
        tree = SMALL.with_entries({"/run": directory(), "/run/socket": socket(), "/run/file": file(b"f")})
        above = layers.make("above", tree, below)

        with_layer(SMALL, layers.diff(above, below)).check(tree.without("/run/socket"))

    @every_map
    def test_a_chain_made_from_tars_shows_their_trees(self, layers: Layers, idmap: IdMap) -> None:
        for made in _applied_chain(layers, idmap):
            layers.check(made)

    def test_layers_made_from_tars_have_their_changes(self, layers: Layers) -> None:
        chain = _applied_chain(layers, MAPPED)

        for made in chain:
            below = made.parent.tree if made.parent else None
            assert layers.changes(made, made.parent) == made.tree.changes_from(below)

    @pytest.mark.parametrize(("first", "second"), [(UNMAPPED, MAPPED), (MAPPED, UNMAPPED), (ANOTHER, GAPS)])
    def test_what_is_packed_under_one_map_is_unpacked_under_another(
        self, layers: Layers, first: IdMap, second: IdMap
    ) -> None:
        chain = layers.chain(parent_map=first)
        below = layers.make("below", MIDDLE, idmap=second)

        again = layers.apply("again", layers.diff(chain.top, chain.middle), TOP, below)

        layers.check(again)
        assert layers.changes(again, below) == TOP.changes_from(MIDDLE)

    @pytest.mark.usefixtures("privileged")
    def test_apply_returns_the_bytes_of_content(self, driver: GraphDriver) -> None:
        packed = layer_tar(None, SMALL)
        driver.create("applied")

        applied = driver.apply_diff("applied", io.BytesIO(packed))

        assert applied == sum(len(entry.content) for _, entry in SMALL.items() if entry.kind is Kind.FILE)

    @pytest.mark.usefixtures("privileged")
    def test_apply_reads_the_stream_to_its_end(self, driver: GraphDriver) -> None:
        stream = io.BytesIO(layer_tar(None, SMALL) + bytes(100_000))
        driver.create("applied")

        driver.apply_diff("applied", stream)

        assert stream.read() == b""

    @pytest.mark.usefixtures("privileged")
    def test_apply_says_which_file_is_outside_the_map(self, driver: GraphDriver) -> None:
        packed = layer_tar(None, SMALL.with_entries({"/a/strange": file(uid=70_000)}))
        driver.create("applied", options=_mapped())

        with pytest.raises(IdNotMapped) as refusal:
            driver.apply_diff("applied", io.BytesIO(packed), ApplyOptions(idmap=MAPPED))

        assert (refusal.value.path.strip("/"), refusal.value.number) == ("a/strange", 70_000)

    @pytest.mark.usefixtures("privileged")
    def test_apply_can_squash_what_is_outside_the_map(self, driver: GraphDriver) -> None:
        packed = layer_tar(None, SMALL.with_entries({"/a/strange": file(uid=70_000, gid=1)}))
        driver.create("applied", options=_mapped())

        driver.apply_diff("applied", io.BytesIO(packed), ApplyOptions(idmap=MAPPED, squash=True))

        with driver.mounted("applied") as root:
            strange = read_tree(root, MAPPED)["/a/strange"]
        assert (strange.uid, strange.gid) == (65_535, 1)

    @pytest.mark.usefixtures("privileged")
    def test_apply_gives_every_file_the_mode_that_is_asked_for(self, driver: GraphDriver) -> None:
        packed = layer_tar(None, SMALL)
        driver.create("applied")

        driver.apply_diff("applied", io.BytesIO(packed), ApplyOptions(force_mode=0o750))

        with driver.mounted("applied") as root:
            found = read_tree(root, IdMap())
        assert {found[path].mode for path in ("/a", "/a/file", "/b")} == {0o750}

    def test_a_file_of_several_names_is_replaced_under_one(self, layers: Layers) -> None:
        linked = Tree({"/first": file(b"linked", uid=1)}, links=[("/first", "/second", "/third")])
        below = layers.make("below", linked)
        tree = linked.with_entries({"/first": file(b"replaced", uid=2)})

        above = layers.apply("above", layer_tar(linked, tree), tree, below)

        assert layers.read(above)["/second"].content == b"linked"
        assert layers.read(above)["/first"].content == b"replaced"
        layers.check(below)

    @pytest.mark.usefixtures("privileged")
    def test_progress_is_told_and_only_grows(self, driver: GraphDriver) -> None:
        told: list[Progress] = []
        packed = layer_tar(None, SMALL.with_entries({"/large": file(os.urandom(4 << 20))}))
        driver.create("applied")

        driver.apply_diff("applied", io.BytesIO(packed), ApplyOptions(progress=told.append))

        assert told
        assert [each.done for each in told] == sorted(each.done for each in told)
        assert {each.unit for each in told} <= {"files", "bytes"}


def _target_size(member: tarfile.TarInfo) -> int:
    return len(os.fsencode(member.linkname)) if member.issym() else 0


def _applied_chain(layers: Layers, idmap: IdMap) -> Chain:
    bottom = layers.apply("bottom", layer_tar(None, BOTTOM), BOTTOM, idmap=idmap)
    middle = layers.apply("middle", layer_tar(BOTTOM, MIDDLE), MIDDLE, bottom)
    return Chain(
        bottom, middle, layers.apply("top", layer_tar(MIDDLE, TOP, opaque={"/lib/old"}), TOP, middle)
    )


def _check_meaning(packed: bytes, below: Tree, expected: Tree) -> None:
    """Fail unless a layer turns ``below`` into ``expected``; it need not carry the root directory."""
    __tracebackhide__ = True
    if not any(name.strip("./") == "" for name in member_names(packed)):
        expected = expected.with_entries({"/": below["/"]})
    with_layer(below, packed).check(expected)


def _mapped() -> CreateOptions:
    return CreateOptions(idmap=MAPPED)
