"""hostspec works on images that podman and buildah build, in the same store."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.images.importing import import_image
from hostspec.store import Store
from hostspec.store.configuration.policy import Strategy
from tests.peers.busybox import GREETING, GREETING_OWNER
from tests.peers.clients import Place, require_program
from tests.store.tars import digest_of

BASE = "localhost/greeter:latest"
BUILT = "localhost/built:latest"
BUILD = ("--quiet", "--isolation", "chroot", "--pull=never", "--tag", BUILT)
MAPPED = IdMap.parse(["0:100000:65536"])
RECIPE = f"""
FROM {BASE}
COPY added /etc/added
RUN rm /etc/passwd && echo ran > /etc/ran
LABEL made=here
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A directory with a Containerfile, and what it copies."""
    (tmp_path / "added").write_text("added\n")
    (tmp_path / "Containerfile").write_text(RECIPE)
    return str(tmp_path)


@pytest.fixture
def built(place: Place, store: Store, busybox_root: str, recipe: str) -> str:
    """The ID of an image that podman built on one that hostspec imported, in one layer."""
    require_program("podman")
    import_image(store, busybox_root, names=[BASE])
    return place.podman("build", *BUILD, "--layers=false", recipe)


def test_hostspec_lists_reads_and_diffs_an_image_that_podman_built(store: Store, built: str) -> None:
    image = store.image(BUILT)
    assert image.id == built
    assert image.digests == (image.digest,)
    assert b'"made":"here"' in store.big_data(image, f"sha256:{image.id}")
    with store.mounting(image.id, read_only=True) as root:
        assert Path(root, "etc", "added").read_text() == "added\n"
        assert Path(root, "etc", "greeting").read_text() == GREETING
        assert not Path(root, "etc", "passwd").exists()

    top = store.layer(image.layer or "")
    assert top.parent == store.image(BASE).layer
    changes = {str(change) for change in store.changes(top.id)}
    # podman leaves the places of /etc/hosts and the like behind.
    assert changes >= {"Modify /etc", "Add /etc/added", "Delete /etc/passwd", "Add /etc/ran"}
    with store.diff(top.id) as stream:
        content = stream.read()
    assert digest_of(content) == top.diff_digest
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {"etc/added", "etc/ran", "etc/.wh.passwd"} <= set(tar.getnames())


def test_hostspec_maps_and_deletes_an_image_that_podman_built(place: Place, store: Store, built: str) -> None:
    strategies: tuple[Strategy, ...] = ("auto", "template", "copy")
    for strategy in strategies:
        container = store.create_container(built, idmap=MAPPED, strategy=strategy)
        with store.mounting(container.id) as root:
            status = Path(root, "etc", "greeting").stat()
            owner = tuple(100_000 + each for each in GREETING_OWNER)
            assert (status.st_uid, status.st_gid) == owner, strategy
            assert Path(root, "etc", "ran").stat().st_uid == 100_000, strategy
        store.delete_container(container.id)
    assert len(store.mapped_copies()) == 1

    base = store.image(BASE)
    assert base.layer not in store.delete_image(built)
    assert [layer.id for layer in store.layers()] == [base.layer]
    assert place.podman("images", "--quiet", "--no-trunc") == f"sha256:{base.id}"


def test_podman_builds_on_an_imported_image_from_its_cache(
    place: Place, store: Store, busybox_root: str, recipe: str
) -> None:
    require_program("podman")
    base = import_image(store, busybox_root, names=[BASE])
    first = place.podman("build", *BUILD, "--layers", recipe)
    # podman knows the layers of an image by IDs that are made of their content; had the import chosen
    # others, it would copy them first, and never find what it has built on them.
    images = store.images()
    assert base.layer in {layer.parent for layer in store.layers()}
    assert place.podman("build", *BUILD, "--layers", recipe) == first
    assert {image.id for image in store.images()} == {image.id for image in images}


def test_hostspec_uses_and_deletes_what_buildah_made_from_nothing(
    place: Place, store: Store, busybox_root: str
) -> None:
    require_program("buildah")
    working = place.buildah("from", "scratch")
    assert store.container(working).image is None
    place.buildah("copy", "--quiet", working, busybox_root, "/")
    # hostspec mounts a working container while buildah has it, too.
    root = place.buildah("mount", working)
    assert store.mount(working) == root
    assert Path(root, "etc", "greeting").read_text() == GREETING
    assert store.unmount(working) is False
    place.buildah("unmount", working)
    place.buildah("config", "--label", "made=here", working)
    place.buildah("commit", "--quiet", "--rm", working, BUILT)
    assert store.containers() == ()
    image = store.image(BUILT)
    with store.mounting(image.id, read_only=True) as shown:
        assert Path(shown, "etc", "greeting").read_text() == GREETING
    assert store.delete_image(BUILT) == (image.layer,)
    assert place.buildah("images", "--quiet") == ""
