"""One store, used by hostspec and by Debian's containers-storage."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostspec.errors import DriverUnavailable
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import unmount
from hostspec.store import Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import directory_for
from tests.store.invariants import faults_of
from tests.store.tars import MAP, OTHER_MAP, digest_of, tar_of

PROGRAM = "containers-storage"
MAPPED = IdMap.parse([MAP])
BASE = tar_of({"etc": None, "etc/name": b"base\n", "a": b"short"})
TOP = tar_of({"etc/name": b"top\n", ".wh.a": b""}, uid=10, gid=20)
CONTENT = {"etc/name": (10, 20, b"top\n")}
MAPPED_CONTENT = {"etc/name": (100010, 100020, b"top\n")}

Tree = dict[str, tuple[int, int, bytes]]


class Peer:
    """Debian's containers-storage, on the same store."""

    def __init__(self, store: Store) -> None:
        self._words = ["--graph", store.root, "--run", store.run_root, "--storage-driver", store.driver_name]

    def try_to(self, *words: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a sub-command, which may fail."""
        command = [PROGRAM, words[0], *self._words, *words[1:]]
        # The machine's own storage.conf may have options for another driver.
        environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
        return subprocess.run(command, input=content, capture_output=True, check=False, env=environment)

    def run(self, *words: str, content: bytes | None = None) -> str:
        """Run a sub-command, which must succeed, and return what it wrote."""
        done = self.try_to(*words, content=content)
        assert done.returncode == 0, f"{words}: {done.stdout.decode()} {done.stderr.decode()}"
        return done.stdout.decode()

    def made(self, *words: str, content: bytes | None = None) -> str:
        """Run a sub-command that makes something, and return its ID."""
        return self.run(*words, content=content).split("\n", 1)[0]


@contextmanager
def opened(driver: str, directory: str, *, shift: str = "native-only") -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    if shutil.which(PROGRAM) is None:
        require_or_skip(PROGRAM, "is not installed; Debian's package has the same name")
    # By default as that program does, which shifts with overlay only.
    store = open_store(
        root=f"{directory}/graph",
        run_root=f"{directory}/run",
        driver=driver,
        options=[f"hostspec.shift={shift}"],
    )
    try:
        _ = store.driver.capabilities
    except DriverUnavailable as error:
        require_or_skip(driver, error.reason)
    with store:
        yield store
    for path in mount_points(directory):
        unmount(path, lazy=True)


@pytest.fixture(params=["vfs", "overlay", "btrfs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with opened(request.param, directory_for(request.param, request)) as found:
        yield found


@pytest.fixture
def peer(store: Store) -> Peer:
    return Peer(store)


def fill(store: Store) -> None:
    """Put an image and containers in, as hostspec does."""
    base = store.import_layer(io.BytesIO(BASE), names=["base"])
    top = store.import_layer(io.BytesIO(TOP), base.id)
    config = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": [base.diff_digest, top.diff_digest]}}
    ).encode()
    store.create_image(
        top.id, names=["example.org/image:1"], big_data={"manifest": b"{}", digest_of(config): config}
    )
    store.create_container("example.org/image:1", names=["plain"], metadata="of the container")


def fill_by_peer(peer: Peer) -> None:
    """Put the same in, as containers-storage does."""
    base = peer.made("import-layer", "-n", "base", content=BASE)
    top = peer.made("import-layer", base, content=TOP)
    image = peer.made("create-image", "-n", "example.org/image:1", top)
    path = os.path.join(os.path.dirname(peer._words[1]), "manifest")
    Path(path).write_bytes(b"{}")
    peer.run("set-image-data", "-f", path, image, "manifest")
    peer.run("set-image-data", "-f", path, image, "sha256:config")
    peer.made("create-container", "-n", "plain", "-m", "of the container", image)


def test_containers_storage_opens_what_hostspec_filled(
    store: Store, peer: Peer, tree_of: Callable[[str], Tree]
) -> None:
    fill(store)
    assert {line for line in peer.run("layers").splitlines() if not line.startswith("\t")} == {
        layer.id for layer in store.layers()
    }
    image, container = store.image("example.org/image:1"), store.container("plain")
    assert image.id in peer.run("images")
    assert f"name: {container.names[0]}" in peer.run("containers")
    shown = peer.run("image", "example.org/image:1")
    assert f"Top Layer: {image.layer}" in shown
    assert f"Digest: {digest_of(b'{}')}" in shown
    assert peer.run("get-image-data", image.id, "manifest") == "{}"
    assert peer.run("metadata", "-q", "plain").strip() == "of the container"
    (layer,) = json.loads(peer.run("layer", "--json", "base"))
    assert layer["diff-digest"] == digest_of(BASE)
    assert layer["uidset"] == [0]
    path = peer.run("mount", "plain").strip()
    assert tree_of(path) == CONTENT
    assert store.mounted("plain") == 1
    assert store.mount("plain") == path
    assert store.unmount("plain") is False
    peer.run("unmount", "plain")
    assert store.mounted("plain") == 0


def test_hostspec_opens_what_containers_storage_filled(
    store: Store, peer: Peer, tree_of: Callable[[str], Tree]
) -> None:
    fill_by_peer(peer)
    image, container = store.image("example.org/image:1"), store.container("plain")
    top = store.layer(image.layer or "")
    assert top.diff_digest == digest_of(TOP)
    assert (top.uids, top.gids) == ((10,), (20,))
    assert store.layer(top.parent or "").names == ("base",)
    assert image.digests == (digest_of(b"{}"),)
    assert store.big_data(image, "sha256:config") == b"{}"
    assert container.metadata == "of the container"
    with store.mounting("plain") as path:
        assert tree_of(path) == CONTENT
        assert peer.run("mounted", "plain").strip() == "plain mounted"
    assert [str(change) for change in store.changes(top.id)] == [
        "Delete /a",
        "Modify /etc",
        "Modify /etc/name",
    ]
    with store.diff(top.id) as stream:
        assert stream.read() == TOP


@pytest.mark.parametrize("kind", ["layers", "images", "containers"])
def test_both_record_the_same_fields_in_the_same_order(store: Store, kind: str, tmp_path: Path) -> None:
    fill(store)
    with opened("vfs", str(tmp_path)) as theirs:
        fill_by_peer(Peer(theirs))
        pair = []
        for each in (store, theirs):
            path = Path(each.root, f"{each.driver_name}-{kind}", f"{kind}.json")
            pair.append([list(record) for record in json.loads(path.read_text())])
    assert pair[0] == pair[1]


def test_what_both_do_in_turn_stays_whole(store: Store, peer: Peer, tree_of: Callable[[str], Tree]) -> None:
    fill(store)
    fill_by = peer.made("create-container", "-n", "theirs", "example.org/image:1")
    assert store.container("theirs").id == fill_by
    store.add_names("theirs", ["renamed"])
    peer.run("add-names", "-n", "third", "renamed")
    assert store.container("third").names == ("theirs", "renamed", "third")
    layer = store.create_layer("base", layer_id="ours")
    assert peer.run("exists", "--layer", layer.id)
    with store.mounting("theirs") as path:
        assert tree_of(path) == CONTENT
    peer.run("delete-container", "third")
    assert not store.has_container(fill_by)
    store.delete_layer("ours")
    peer.run("delete-container", "plain")
    store.delete_image("example.org/image:1")
    assert peer.run("layers") == ""
    assert faults_of(store) == []


def test_hostspec_uses_a_copy_that_containers_storage_made(
    store: Store, peer: Peer, tree_of: Callable[[str], Tree]
) -> None:
    fill(store)
    words = ["--uidmap", MAP, "--gidmap", MAP, "example.org/image:1"]
    peer.made("create-container", "-n", "theirs", *words)
    copies = store.image("example.org/image:1").mapped_layers
    store.create_container("example.org/image:1", names=["ours"], idmap=MAPPED)
    assert store.image("example.org/image:1").mapped_layers == copies
    theirs, ours = store.container("theirs"), store.container("ours")
    assert store.layer(ours.layer).parent == store.layer(theirs.layer).parent
    assert store.layer(ours.layer).idmap == store.layer(theirs.layer).idmap
    for name in ("ours", "theirs"):
        with store.mounting(name) as path:
            assert tree_of(path) == MAPPED_CONTENT


def test_containers_storage_uses_a_copy_that_hostspec_made(
    store: Store, peer: Peer, tree_of: Callable[[str], Tree]
) -> None:
    if store.explain_idmap(None, MAPPED).way == "shift":
        pytest.skip("both shift here, so neither makes a copy")
    fill(store)
    ours = store.create_container("example.org/image:1", idmap=MAPPED)
    copies = store.image("example.org/image:1").mapped_layers
    words = ["--uidmap", MAP, "--gidmap", MAP, "example.org/image:1"]
    theirs = peer.made("create-container", *words)
    assert store.image("example.org/image:1").mapped_layers == copies
    path = peer.run("mount", theirs).strip()
    assert tree_of(path) == MAPPED_CONTENT
    peer.run("unmount", theirs)
    peer.run("delete-container", theirs)
    store.delete_container(ours.id)
    store.delete_container("plain")
    removed = store.delete_image("example.org/image:1", dry_run=True)
    assert removed[0] == copies[0]
    peer.run("delete-image", "example.org/image:1")
    assert store.layers() == ()
    assert (
        store.mapped_copies() == []
    )  # notes of copies that somebody else removed go when they are asked for
    assert faults_of(store) == []


def test_a_forced_copy_lists_with_containers_storage(store: Store, peer: Peer) -> None:
    fill(store)
    store.create_container("example.org/image:1", idmap=IdMap.parse([OTHER_MAP]), strategy="copy")
    (copy,) = store.image("example.org/image:1").mapped_layers
    assert f"Top Layer: {copy}" in peer.run("image", "example.org/image:1")
    assert "UID mapping: (container=0, host=200000, size=65536)" in peer.run("layer", copy)


@pytest.mark.parametrize("driver", ["vfs", "btrfs"])
def test_containers_storage_refuses_a_container_that_only_hostspec_shifts(
    request: pytest.FixtureRequest, driver: str, tree_of: Callable[[str], Tree]
) -> None:
    """Instead of showing it with the wrong owners."""
    directory = directory_for(driver, request)
    with opened(driver, directory, shift="auto") as store:
        shifting = store.driver.supports_shifting(MAPPED)
        if not shifting.possible:
            require_or_skip("shifting", shifting.reason)
        fill(store)
        container = store.create_container("example.org/image:1", names=["shifted"], idmap=MAPPED)
        assert (store.layer(container.layer).idmap, container.idmap) == (IdMap(), MAPPED)
        done = Peer(store).try_to("mount", "shifted")
        assert done.returncode != 0
        assert b"shifting not enabled" in done.stdout + done.stderr
        with store.mounting("shifted") as path:
            assert tree_of(path) == MAPPED_CONTENT
        assert faults_of(store) == []
        Peer(store).run("delete-container", "shifted")
        assert not store.has_container("shifted")
