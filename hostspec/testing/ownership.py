"""Everything that carries an ID, and everything that must survive when IDs are changed."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from hostspec.errors import IdNotMapped
from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from hostspec.testing.layers import Layers
from hostspec.testing.opening import DriverFixtures
from hostspec.testing.samples import ANOTHER, GAPS, HIGHEST, MAPPED, SMALL, UNMAPPED
from hostspec.testing.shifting import read_shifted
from hostspec.testing.tree import (
    MTIME_NS,
    Entry,
    Tree,
    character_device,
    directory,
    fifo,
    file,
    socket,
    symlink,
)
from hostspec.values import LayerRef, ShiftOptions

__all__ = ["Ownership"]

Move = Callable[..., Tree]
"""Makes a layer of some entries, moves it to another map, and returns what it then shows."""

STRATEGIES: Final = ("update_idmap", "create_from_template", "inherited", "shifted")
"""How a tree can come to be seen under another map."""
LINKS: Final = ("/first", "/second", "/d/third")


class Ownership(DriverFixtures):
    """Each fact of a file that copies and ownership passes have been seen to lose, by itself."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Move in each way of each strategy; no fallback shifts at mount."""
        if "move" not in metafunc.fixturenames:
            super().pytest_generate_tests(metafunc)
            return
        both = [(way, how) for way in self.ways for how in STRATEGIES if way == "native" or how != "shifted"]
        ids = [f"{way}-{how}" for way, how in both]
        metafunc.parametrize(("open_driver_at", "move"), both, ids=ids, indirect=True)

    @pytest.fixture
    def move(self, request: pytest.FixtureRequest, layers: Layers) -> Move:
        """Moves a tree to another map: where it is, as a copy, as what a copy inherits, by its mount."""

        def move(
            entries: Mapping[str, Entry],
            *,
            links: tuple[tuple[str, ...], ...] = (),
            old: IdMap = UNMAPPED,
            new: IdMap = MAPPED,
        ) -> Tree:
            expected = Tree(entries, links=links)
            if request.param == "shifted":
                return read_shifted(layers, layers.make("made", expected), new)
            made = layers.make("made", expected, idmap=old)
            match request.param:
                case "update_idmap":
                    return layers.read(layers.make("moved", expected, made, idmap=new))
                case "create_from_template":
                    moved = layers.copy("moved", made, new)
                case _:
                    more = expected.with_entries({"/of-the-template": file(b"more", uid=1)})
                    moved = layers.copy("moved", layers.make("template", more, made), new)
            # No diff need carry the time of the root directory.
            return layers.read(moved).without("/of-the-template").with_root_time(expected["/"].mtime_ns)

        return move

    def test_the_root_directory_is_mapped(self, move: Move) -> None:
        found = move({"/": directory(mode=0o750, uid=3, gid=4)})

        assert (found["/"].uid, found["/"].gid, found["/"].mode) == (3, 4, 0o750)

    def test_names_of_one_character_are_mapped(self, move: Move) -> None:
        entries = {"/x": file(uid=1, gid=1), "/y": directory(uid=2, gid=2), "/z": symlink("x", uid=3, gid=3)}

        move(entries).check(Tree(entries))

    def test_symbolic_links_are_mapped_and_not_what_they_lead_to(self, move: Move) -> None:
        entries = {
            "/etc": directory(),
            "/etc/shadow": file(mode=0o640, gid=42),
            "/link": symlink("/etc/shadow", uid=1_000, gid=1_000),
            "/dangling": symlink("/nowhere", uid=7, gid=8),
            "/outside": symlink("../../../../etc", uid=9, gid=9),
        }

        move(entries).check(Tree(entries))

    def test_hard_links_stay_one_inode_and_are_mapped_once(self, move: Move) -> None:
        found = move(
            {"/d": directory(), "/first": file(b"three names", uid=5, gid=6)},
            links=(LINKS,),
            old=MAPPED,
            new=ANOTHER,
        )

        found.check(Tree({"/d": directory(), "/first": file(b"three names", uid=5, gid=6)}, links=(LINKS,)))

    def test_set_id_bits_are_kept(self, move: Move) -> None:
        entries = {
            "/su": file(b"su", mode=0o4755),
            "/mail": file(b"mail", mode=0o2755, gid=8),
            "/both": file(b"both", mode=0o6711, uid=1, gid=1),
            "/locks": file(b"", mode=0o2644, gid=5),
            "/shared": directory(mode=0o2775, uid=1_000, gid=1_000),
            "/tmp": directory(mode=0o1777),
        }

        move(entries).check(Tree(entries))

    def test_users_and_groups_in_acls_are_mapped(self, move: Move) -> None:
        access = b"u::rw-,u:1000:r--,u:1001:rw-,g::r--,g:42:rw-,g:1002:r--,m::rw-,o::r--"
        entries = {"/acl": file(b"acl", mode=0o664, uid=1_000, xattrs={ACL_ACCESS: access})}

        move(entries).check(Tree(entries))

    def test_users_and_groups_in_default_acls_are_mapped(self, move: Move) -> None:
        default = b"u::rwx,u:1000:rwx,g::r-x,g:42:rwx,m::rwx,o::r-x"
        entries = {
            "/": directory(xattrs={ACL_DEFAULT: default}),
            "/d": directory(uid=1, xattrs={ACL_DEFAULT: default}),
        }

        move(entries).check(Tree(entries))

    def test_capabilities_of_version_2_are_kept(self, move: Move) -> None:
        entries = {"/ping": file(b"ping", mode=0o755, xattrs={CAPABILITY: b"permitted=0x2000 effective"})}

        move(entries).check(Tree(entries))

    def test_the_root_id_of_capabilities_of_version_3_is_mapped(self, move: Move) -> None:
        capability = b"permitted=0x3000000400 inheritable=0x400 root=1000"
        entries = {"/ping": file(b"ping", mode=0o755, uid=1, xattrs={CAPABILITY: capability})}

        move(entries, old=MAPPED, new=ANOTHER).check(Tree(entries))

    def test_capabilities_of_a_containers_root_become_those_of_the_hosts(self, move: Move) -> None:
        namespaced = file(b"ping", mode=0o755, xattrs={CAPABILITY: b"permitted=0x400 root=0"})

        found = move({"/ping": namespaced}, old=MAPPED, new=UNMAPPED)

        # The kernel shows version 3 with root ID 0 as version 2.
        assert dict(found["/ping"].xattrs)[CAPABILITY] == b"permitted=0x400"

    def test_other_extended_attributes_are_kept(self, move: Move) -> None:
        notes = {"user.note": b"\x00\xff", "trusted.note": b"t", "security.note": b"s", "user.empty": b""}
        entries = {
            "/file": file(b"noted", uid=1, xattrs=notes),
            "/directory": directory(uid=1, xattrs=notes),
            # What begins with "user." cannot be on a link.
            "/link": symlink("file", uid=1, xattrs={"trusted.note": b"of a link"}),
        }

        move(entries).check(Tree(entries))

    def test_times_are_kept_to_the_nanosecond(self, move: Move) -> None:
        entries = {
            "/": directory(mtime_ns=MTIME_NS + 5),
            "/old": directory(uid=1, mtime_ns=1),
            "/old/file": file(uid=1, mtime_ns=999_999_999),
            "/old/link": symlink("file", uid=1, mtime_ns=MTIME_NS + 7),
            "/late": file(uid=1, mtime_ns=4_000_000_000_000_000_001),
        }

        move(entries).check(Tree(entries))

    def test_devices_and_pipes_are_kept_and_mapped(self, move: Move) -> None:
        entries = {
            "/null": character_device(1, 3, uid=1, gid=2),
            "/large": character_device(300, 70_000, mode=0o600, uid=3),
            "/pipe": fifo(uid=4, gid=5),
        }

        move(entries).check(Tree(entries))

    def test_holes_stay_holes(self, move: Move) -> None:
        entries = {"/sparse": file(bytes(4 << 20) + b"end", uid=1, sparse=True)}

        move(entries).check(Tree(entries))

    def test_names_of_any_bytes_are_mapped(self, move: Move) -> None:
        entries = {
            "/caf\udce9": directory(uid=1),
            "/caf\udce9/\udcff\udcfe": file(uid=2),
            "/new\nline": file(uid=3),
            "/ spaces ": file(uid=4),
            "/" + "n" * 255: file(uid=5),
            "/-rf": file(uid=6),
            "/...": file(uid=7),
        }

        move(entries).check(Tree(entries))

    def test_a_deep_tree_is_mapped_to_its_last_file(self, move: Move) -> None:
        entries: dict[str, Entry] = {}
        path = ""
        for depth in range(40):
            path += f"/d{depth}"
            entries[path] = directory(uid=depth)
        entries[f"{path}/file"] = file(b"deep", uid=1_000)

        move(entries).check(Tree(entries))

    @pytest.mark.parametrize("uid", [65_535, 65_536, 4_294_967_294])
    def test_ids_of_32_bits_are_mapped(self, layers: Layers, uid: int) -> None:
        idmap = IdMap([(0, 1, 1), (uid, 10, 1)], [(0, 4_294_967_000, 1), (uid, 4_294_967_294, 1)])
        entries = {"/file": file(uid=uid, gid=uid)}

        copy = layers.copy("copy", layers.make("made", Tree(entries)), idmap)

        layers.check(copy)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            pytest.param(UNMAPPED, GAPS, id="none-to-gaps"),
            pytest.param(GAPS, UNMAPPED, id="gaps-to-none"),
            pytest.param(GAPS, ANOTHER, id="gaps-to-another"),
            pytest.param(ANOTHER, HIGHEST, id="another-to-highest"),
            pytest.param(HIGHEST, MAPPED, id="highest-to-mapped"),
        ],
    )
    def test_a_layer_changes_its_map_and_nothing_else(self, layers: Layers, old: IdMap, new: IdMap) -> None:
        chain = layers.chain(parent_map=old)
        driver = layers.driver
        driver.create("moved", chain.top.layer)

        driver.update_idmap("moved", old, new)
        driver.commit("moved")

        moved = chain.top._replace(layer=LayerRef("moved", new), parent=chain.top)
        layers.check(moved)
        layers.check(chain.top)
        assert layers.changes(moved, chain.top) == []

    def test_a_map_changed_there_and_back_is_as_before(self, layers: Layers) -> None:
        chain = layers.chain()
        driver = layers.driver
        driver.create("moved", chain.top.layer)

        driver.update_idmap("moved", UNMAPPED, ANOTHER)
        driver.update_idmap("moved", ANOTHER, UNMAPPED)
        driver.commit("moved")

        layers.check(chain.top._replace(layer=LayerRef("moved"), parent=chain.top))

    def test_an_ownership_pass_says_which_file_is_outside_the_map(self, layers: Layers) -> None:
        made = layers.make("made", SMALL.with_entries({"/a/strange": file(uid=70_000)}))
        layers.driver.create("moved", made.layer)

        with pytest.raises(IdNotMapped) as refusal:
            layers.driver.update_idmap("moved", UNMAPPED, MAPPED)

        assert (refusal.value.path.strip("/"), refusal.value.number) == ("a/strange", 70_000)
        layers.driver.remove("moved")

    def test_an_id_in_an_acl_that_is_outside_the_map_is_an_error(self, layers: Layers) -> None:
        access = b"u::rw-,u:70000:r--,g::r--,m::r--,o::r--"
        made = layers.make("made", SMALL.with_entries({"/a/acl": file(xattrs={ACL_ACCESS: access})}))
        layers.driver.create("moved", made.layer)

        with pytest.raises(IdNotMapped) as refusal:
            layers.driver.update_idmap("moved", UNMAPPED, MAPPED)

        assert (refusal.value.path.strip("/"), refusal.value.number) == ("a/acl", 70_000)
        layers.driver.remove("moved")

    def test_sockets_are_mapped_where_they_are(self, layers: Layers) -> None:
        tree = Tree({"/run": directory(), "/run/socket": socket(uid=1, gid=2)})
        made = layers.make("made", tree)

        layers.check(layers.make("moved", tree, made, idmap=MAPPED))

    def test_an_ownership_pass_can_squash_what_is_outside_the_map(self, layers: Layers) -> None:
        strange = {"/a/strange": file(uid=70_000, gid=1), "/b": file(uid=1, gid=4_000_000_000)}
        made = layers.make("made", SMALL.with_entries(strange))
        layers.driver.create("moved", made.layer)

        shifted = layers.driver.update_idmap("moved", UNMAPPED, MAPPED, ShiftOptions(squash=True))
        layers.driver.commit("moved")

        nearest = {"/a/strange": file(uid=65_535, gid=1), "/b": file(uid=1, gid=65_535)}
        expected = SMALL.with_entries(nearest)
        layers.check(made._replace(layer=LayerRef("moved", MAPPED), tree=expected))
        assert shifted.squashed == 2

    @pytest.mark.parametrize("threads", [1, 3])
    def test_the_number_of_threads_makes_no_difference(self, layers: Layers, threads: int) -> None:
        top = layers.chain().top
        layers.driver.create("moved", top.layer)

        layers.driver.update_idmap("moved", UNMAPPED, MAPPED, ShiftOptions(threads=threads))
        layers.driver.commit("moved")

        layers.check(top._replace(layer=LayerRef("moved", MAPPED)))
