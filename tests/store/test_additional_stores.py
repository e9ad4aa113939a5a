"""Stores whose images are used from another one and never written, and images with a root of their own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hostspec.errors import DriverUnavailable, Duplicate, InvalidRequest, StoreReadOnly, Unknown
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import bind, unmount
from hostspec.store import Image, Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.tars import MAP, digest_of, tar_of

PROGRAM = "containers-storage"
MAPPED = IdMap.parse([MAP])
BASE = tar_of({"etc": None, "etc/name": b"base\n", "gone": b"1"})
TOP = tar_of({"etc/name": b"top\n", ".wh.gone": b""})
MANIFEST = b'{"schemaVersion":2}'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")


class Machine:
    """A directory for several stores of one driver."""

    def __init__(self, directory: str, driver: str) -> None:
        self.directory = directory
        self.driver = driver

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def open(self, name: str = "own", *, options: Sequence[str] = (), **more: object) -> Store:
        """Open the store of that name; ``more`` is as for ``open_store``."""
        return open_store(
            root=self.path(name),
            run_root=self.path("run-" + name),
            driver=self.driver,
            options=options,
            **more,  # type: ignore[arg-type]
        )

    def with_shared(self) -> Store:
        return self.open(options=[f"{self.driver}.imagestore={self.path('shared')}"])

    def snapshot(self, name: str) -> dict[str, tuple[int, int, str]]:
        """Return what a store consists of, lock files left out; they are touched by whoever reads."""
        found: dict[str, tuple[int, int, str]] = {}
        for directory, names, files in os.walk(self.path(name)):
            names[:] = [each for each in names if each != "tempdirs"]
            for each in (*names, *(each for each in files if not each.endswith(".lock"))):
                path = Path(directory, each)
                status = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                changed = status.st_mtime_ns if not path.is_dir() else 0
                found[str(path)] = (status.st_mode, changed, hashlib.sha256(content).hexdigest())
        return found

    def peer(self, *words: str, options: Sequence[str] = ()) -> str:
        """Run Debian's containers-storage on the store ``own``."""
        if shutil.which(PROGRAM) is None:
            require_or_skip(PROGRAM, "is not installed; Debian's package has the same name")
        flags = ["--graph", self.path("own"), "--run", self.path("run-own"), "-s", self.driver]
        done = subprocess.run(
            [PROGRAM, *flags, *(each for option in options for each in ("--storage-opt", option)), *words],
            env={**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture(params=["vfs", "overlay", "btrfs"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    directory = directory_for(request.param, request)
    found = Machine(directory, request.param)
    try:
        _ = found.open("probe").driver.capabilities
    except DriverUnavailable as error:
        require_or_skip(found.driver, error.reason)
    yield found
    for path in mount_points(directory):
        unmount(path, lazy=True)


@pytest.fixture
def shared(machine: Machine) -> Image:
    """An image in a store that others use, and which is as it was afterwards."""
    with machine.open("shared") as store:
        base = store.import_layer(io.BytesIO(BASE), names=["base"])
        top = store.import_layer(io.BytesIO(TOP), base.id)
        image = store.create_image(top.id, names=["shared"], big_data={"manifest": MANIFEST})
        store.shutdown()
        return image


@pytest.fixture
def unchanged(machine: Machine, shared: Image) -> Iterator[None]:
    """Proves that the test does not write to the shared store."""
    del shared
    before = machine.snapshot("shared")
    yield
    assert machine.snapshot("shared") == before


@pytest.mark.usefixtures("unchanged")
def test_images_of_an_additional_store_are_seen_and_marked(machine: Machine, shared: Image) -> None:
    with machine.with_shared() as store:
        own = store.create_layer()
        assert [each.id for each in store.images()] == [shared.id]
        assert store.image("shared").read_only
        assert store.big_data(store.image("shared"), "manifest") == MANIFEST
        assert [each.read_only for each in store.layers()] == [False, True, True]
        assert store.layer("base").read_only
        assert not store.layer(own.id).read_only
        assert store.additional_stores == (machine.path("shared"),)
        assert store.images_by_digest(digest_of(MANIFEST))[0].id == shared.id
        assert store.image_size(shared.id) > 0


@pytest.mark.usefixtures("unchanged")
def test_containers_and_layers_stand_on_layers_of_an_additional_store(
    machine: Machine, shared: Image, tree_of: Callable[[str], object]
) -> None:
    with machine.with_shared() as store:
        container = store.create_container("shared", names=["c"])
        with store.mounting("c") as path:
            Path(path, "new").write_bytes(b"n")
            assert tree_of(path) == {"etc/name": (0, 0, b"top\n"), "new": (0, 0, b"n")}
        assert [str(each) for each in store.changes(container.layer)] == ["Add /new"]
        further = store.import_layer(io.BytesIO(tar_of({"more": b"m"})), shared.layer)
        image = store.create_image(further.id, names=["mine"])
        assert store.delete_image(image.id) == (further.id,)
        store.delete_container("c")
        assert [each.read_only for each in store.layers()] == [True, True]


@pytest.mark.usefixtures("unchanged")
def test_an_image_of_an_additional_store_is_mounted_read_only(
    machine: Machine, shared: Image, tree_of: Callable[[str], object]
) -> None:
    with machine.with_shared() as store:
        with store.mounting("shared", read_only=True) as path:
            assert tree_of(path) == {"etc/name": (0, 0, b"top\n")}
        with pytest.raises(StoreReadOnly, match="additional image store"):
            store.mount(str(shared.layer))


def test_an_additional_store_may_lie_on_a_read_only_file_system(
    machine: Machine, shared: Image, tree_of: Callable[[str], object]
) -> None:
    bind(machine.path("shared"), machine.path("shared"), read_only=True)
    with machine.with_shared() as store:
        assert [each.id for each in store.images()] == [shared.id]
        store.create_container("shared", names=["c"])
        with store.mounting("c") as path:
            assert tree_of(path) == {"etc/name": (0, 0, b"top\n")}
        with store.mounting("shared", read_only=True) as path:
            assert tree_of(path) == {"etc/name": (0, 0, b"top\n")}
        store.add_names("shared", ["mine"])
        assert store.image("mine").id == shared.id


@pytest.mark.usefixtures("unchanged")
def test_what_would_write_to_an_additional_store_is_refused(machine: Machine, shared: Image) -> None:
    with machine.with_shared() as store:
        image = store.image("shared")
        layer = store.layer(str(shared.layer))
        for attempt in (
            lambda: store.delete_image(image.id),
            lambda: store.delete(image.id),
            lambda: store.delete_layer(layer.id),
            lambda: store.delete(layer.id),
            lambda: store.set_metadata(image.id, "text"),
            lambda: store.set_metadata(layer.id, "text"),
            lambda: store.set_big_data(image, "key", b"x"),
            lambda: store.set_big_data(layer, "key", b"x"),
            lambda: store.add_names(layer.id, ["name"]),
            lambda: store.apply_diff(layer.id, io.BytesIO(BASE)),
        ):
            with pytest.raises(StoreReadOnly):
                attempt()
        with pytest.raises(Duplicate):
            store.create_layer(layer_id=layer.id)
        store.wipe()
        assert [each.id for each in store.images()] == [shared.id]


@pytest.mark.usefixtures("unchanged")
def test_naming_an_image_of_an_additional_store_copies_its_record(machine: Machine, shared: Image) -> None:
    with machine.with_shared() as store:
        store.add_names(shared.id, ["mine"])
        copy = store.image("mine")
        assert not copy.read_only
        assert (copy.id, copy.layer, copy.names) == (shared.id, shared.layer, ("shared", "mine"))
        assert copy.digests == shared.digests
        assert store.big_data(copy, "manifest") == MANIFEST
        store.set_big_data(copy, "key", b"value")
        store.set_metadata("mine", "text")
        assert store.image("mine").metadata == "text"
    if machine.driver != "btrfs":  # whose driver in version 1.43 knows no additional stores
        listed = machine.peer(
            "images", "-j", options=[f"{machine.driver}.imagestore={machine.path('shared')}"]
        )
        assert ["shared", "mine"] in [each["names"] for each in json.loads(listed)]
    with machine.with_shared() as store:
        assert store.delete_image("mine") == ()
        assert store.image("shared").read_only
        with pytest.raises(Unknown):
            store.image("mine")


@pytest.mark.usefixtures("unchanged")
def test_an_image_made_under_the_id_of_one_in_an_additional_store_takes_over_its_items(
    machine: Machine, shared: Image
) -> None:
    with machine.with_shared() as store:
        made = store.create_image(shared.layer, image_id=shared.id, names=["again"], metadata="text")
        assert (made.names, made.metadata) == (("shared", "again"), "text")
        assert store.big_data(store.image("again"), "manifest") == MANIFEST


@pytest.mark.usefixtures("unchanged")
def test_a_mapped_copy_of_an_image_in_an_additional_store_is_made_once(
    machine: Machine, shared: Image, tree_of: Callable[[str], object]
) -> None:
    with machine.with_shared() as store:
        first, second = (
            store.layer(store.create_container("shared", idmap=MAPPED, strategy="template").layer)
            for _ in range(2)
        )
        assert first.parent == second.parent != shared.layer
        copy = store.layer(str(first.parent))
        assert (copy.idmap, copy.parent, copy.read_only) == (
            MAPPED,
            store.layer(str(shared.layer)).parent,
            False,
        )
        with store.mounting(second.id) as path:
            assert tree_of(path) == {"etc/name": (100_000, 100_000, b"top\n")}
        assert [each.layer.id for each in store.mapped_copies()] == [copy.id]
        assert store.mapped_copies()[0].image.id == shared.id
        store.add_names(shared.id, ["mine"])
        assert store.image("mine").mapped_layers == (copy.id,)


# The btrfs driver of version 1.43 knows no additional stores.
@pytest.mark.parametrize("machine", ["vfs", "overlay"], indirect=True)
def test_the_go_command_lists_the_same_images(machine: Machine, shared: Image) -> None:
    options = [f"{machine.driver}.imagestore={machine.path('shared')}"]
    with machine.with_shared() as store:
        own = store.create_image(names=["own"])
        listed = json.loads(machine.peer("images", "-j", options=options))
        assert [each["id"] for each in listed] == [each.id for each in store.images()] == [own.id, shared.id]
        layers = json.loads(machine.peer("layers", "-j", options=options))
        assert [each["id"] for each in layers] == [each.id for each in store.layers()]


def test_what_is_new_in_an_additional_store_is_seen_by_a_store_that_is_open(
    machine: Machine, shared: Image
) -> None:
    with machine.with_shared() as store, machine.open("shared") as other:
        assert len(store.images()) == 1
        added = other.create_image(shared.layer, names=["later"])
        assert store.image("later").id == added.id


def test_an_additional_store_that_is_no_directory_is_refused_by_name(machine: Machine) -> None:
    with pytest.raises(InvalidRequest, match=r"imagestore=/no/such: must be the absolute path"):
        machine.open(options=[".imagestore=/no/such"])


def test_an_additional_store_without_records_is_an_empty_one(machine: Machine) -> None:
    os.mkdir(machine.path("shared"))
    with machine.with_shared() as store:
        assert store.images() == ()
    assert os.listdir(machine.path("shared")) == []


# Images with a graph root of their own


def split(machine: Machine) -> Store:
    return machine.open(image_store=machine.path("images"))


def recorded(machine: Machine, root: str, kind: str) -> list[str]:
    path = Path(machine.path(root), f"{machine.driver}-{kind}", f"{kind}.json")
    return [each["id"] for each in json.loads(path.read_text())] if path.exists() else []


def test_images_and_their_layers_go_to_the_image_store(
    machine: Machine, tree_of: Callable[[str], object]
) -> None:
    with split(machine) as store:
        base = store.import_layer(io.BytesIO(BASE))
        image = store.create_image(base.id, names=["image"], big_data={"manifest": MANIFEST})
        container = store.create_container("image", names=["c"])
        with store.mounting("c") as path:
            assert tree_of(path) == {"etc/name": (0, 0, b"base\n"), "gone": (0, 0, b"1")}
        assert store.image_store == machine.path("images")
    assert recorded(machine, "images", "layers") == [base.id]
    assert recorded(machine, "images", "images") == [image.id]
    assert recorded(machine, "own", "layers") == [container.layer]
    assert recorded(machine, "own", "images") == []
    with machine.open("images") as alone:
        assert [each.id for each in alone.images()] == [image.id]
        with alone.mounting(base.id, read_only=True) as path:
            assert tree_of(path) == {"etc/name": (0, 0, b"base\n"), "gone": (0, 0, b"1")}
    with machine.open() as without:
        assert without.images() == ()


def test_images_from_before_the_split_are_seen_changed_and_deleted(machine: Machine) -> None:
    with machine.open() as store:
        layer = store.import_layer(io.BytesIO(BASE))
        image = store.create_image(layer.id, names=["old"], big_data={"manifest": MANIFEST})
    with split(machine) as store:
        assert store.big_data(store.image("old"), "manifest") == MANIFEST
        store.add_names("old", ["older"])
        store.set_big_data(store.image("old"), "key", b"value")
        top = store.import_layer(io.BytesIO(TOP), layer.id)
        new = store.create_image(top.id, names=["new"])
        assert recorded(machine, "images", "layers") == [top.id]
    with machine.open() as store:
        assert store.image("older").id == image.id
        assert store.big_data(store.image("older"), "key") == b"value"
    with split(machine) as store:
        assert store.delete_image(new.id) == (top.id,)
        assert store.delete_image("old") == (layer.id,)
        assert (store.layers(), store.images()) == ((), ())
        assert store.driver.list_layers() == ()


def test_mapped_copies_go_to_the_image_store(machine: Machine, tree_of: Callable[[str], object]) -> None:
    with split(machine) as store:
        base = store.import_layer(io.BytesIO(BASE))
        top = store.import_layer(io.BytesIO(TOP), base.id)
        store.create_image(top.id, names=["image"])
        store.create_container("image", names=["c"], idmap=MAPPED, strategy="template")
        with store.mounting("c") as path:
            assert tree_of(path) == {"etc/name": (100_000, 100_000, b"top\n")}
        (copy,) = store.image("image").mapped_layers
        assert recorded(machine, "images", "layers") == [base.id, top.id, copy]
        store.delete_container("c")
        assert store.delete_image("image") == (copy, top.id, base.id)


def test_the_image_store_must_be_another_directory(machine: Machine) -> None:
    with pytest.raises(InvalidRequest, match="is the graph root"):
        machine.open(image_store=machine.path("own"))


# Containers that need not survive a reboot


def test_containers_of_a_transient_store_are_forgotten_with_the_run_root(machine: Machine) -> None:
    with machine.open(transient=True) as store:
        layer = store.import_layer(io.BytesIO(BASE))
        image = store.create_image(layer.id, names=["image"])
        made = store.create_container("image", names=["c"])
        assert made.volatile
        assert [each.id for each in store.containers()] == [made.id]
    run = Path(machine.path("run-own"))
    assert (run / f"{machine.driver}-containers/volatile-containers.json").exists()
    assert (run / f"{machine.driver}-layers/volatile-layers.json").exists()
    with machine.open() as store:
        assert store.containers() == ()
    shutil.rmtree(run)
    with machine.open(transient=True) as store:
        assert store.containers() == ()
        assert [each.id for each in store.layers()] == [layer.id]
        assert [each.id for each in store.images()] == [image.id]
