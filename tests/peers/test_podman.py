"""podman works on images and containers that hostspec made, in the same store, and the other way round."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.images.importing import import_image
from hostspec.store import Image, Store
from tests.peers.busybox import GREETING, GREETING_OWNER
from tests.peers.clients import Place, require_program
from tests.peers.layouts import blob_in, manifest_in
from tests.store.tars import digest_of

NAME = "localhost/greeter:latest"
MAP = "0:100000:65536"
MAPPED = IdMap.parse([MAP])
SHOW = ("/bin/sh", "-c", "cat /etc/greeting /proc/self/uid_map; stat -c '%u %g' /etc/greeting")
UNMAPPED_IDS = "0 0 4294967295"
MAPPED_IDS = "0 100000 65536"


@pytest.fixture
def image(store: Store, busybox_root: str) -> Image:
    """An image that hostspec imported."""
    require_program("podman")
    return import_image(store, busybox_root, names=[NAME])


def shown(ids: str) -> list[str]:
    """Return what ``SHOW`` prints in a container whose processes run under these IDs."""
    return [GREETING.strip(), ids, " ".join(map(str, GREETING_OWNER))]


def lines(output: str) -> list[str]:
    return [" ".join(line.split()) for line in output.splitlines()]


@pytest.mark.usefixtures("image")
def test_podman_runs_an_imported_image(place: Place) -> None:
    assert lines(place.podman("run", "--rm", NAME, *SHOW)) == shown(UNMAPPED_IDS)


@pytest.mark.usefixtures("image")
def test_podman_runs_an_imported_image_under_a_map(place: Place, store: Store) -> None:
    assert lines(place.podman("run", "--rm", "--uidmap", MAP, NAME, *SHOW)) == shown(MAPPED_IDS)
    assert store.containers() == ()


def test_podman_describes_an_imported_image_as_hostspec_does(
    place: Place, store: Store, image: Image
) -> None:
    (told,) = place.podman_json("image", "inspect", NAME)
    layers = [store.layer(image.layer or "").diff_digest]
    assert told["Id"] == image.id
    assert told["Digest"] == image.digest
    assert told["RepoTags"] == [NAME]
    assert told["RootFS"] == {"Type": "layers", "Layers": layers}
    assert told["ManifestType"] == "application/vnd.oci.image.manifest.v1+json"


def test_podman_pushes_an_imported_image_as_it_was(
    place: Place, store: Store, image: Image, tmp_path: Path
) -> None:
    place.podman("push", "--quiet", NAME, f"dir:{tmp_path}/directory")
    assert digest_of((tmp_path / "directory" / "manifest.json").read_bytes()) == image.digest

    # Into a layout, podman compresses; the configuration and the tars in it are the same.
    place.podman("push", "--quiet", NAME, f"oci:{tmp_path}/layout:pushed")
    manifest = manifest_in(tmp_path / "layout")
    assert manifest["config"]["digest"] == f"sha256:{image.id}"
    layers = [gzip.decompress(blob_in(tmp_path / "layout", each["digest"])) for each in manifest["layers"]]
    assert [digest_of(layer) for layer in layers] == [store.layer(image.layer or "").diff_digest]


def test_a_container_that_podman_ran_shows_its_changes_to_hostspec(
    place: Place, store: Store, image: Image
) -> None:
    script = "echo new > /new; rm /etc/greeting; echo other > /etc/passwd"
    place.podman("run", "--name", "worker", NAME, "/bin/sh", "-c", script)

    container = store.container("worker")
    assert container.image == image.id
    changes = {str(change) for change in store.changes("worker")}
    # podman leaves out what it makes itself in every container: /etc/hosts and the like.
    assert changes >= {"Add /new", "Delete /etc/greeting", "Modify /etc/passwd", "Modify /etc"}
    assert set(lines(place.podman("diff", "worker"))) == {
        "A /new", "C /etc", "C /etc/passwd", "D /etc/greeting",
    }  # fmt: skip
    with store.mounting("worker", read_only=True) as root:
        assert Path(root, "new").read_text() == "new\n"
    place.podman("rm", "worker")
    assert not store.has_container(container.id)
    assert not store.has_layer(container.layer)


@pytest.mark.usefixtures("image")
def test_hostspec_deletes_a_container_of_podman_and_podman_forgets_its_layer(
    place: Place, store: Store
) -> None:
    place.podman("create", "--name", "never-run", NAME, "/bin/sh")
    container = store.container("never-run")
    store.delete_container(container.id)
    # podman keeps a record of its own beside the store, and takes it away without complaint.
    place.podman("rm", "never-run")
    assert place.podman("ps", "--all", "--quiet", "--external") == ""
    assert not store.has_layer(container.layer)


def test_podman_removes_an_imported_image_and_everything_of_it(
    place: Place, store: Store, image: Image
) -> None:
    store.delete_container(store.create_container(image.id, idmap=MAPPED, strategy="template").id)
    assert len(store.mapped_copies()) == 1
    place.podman("image", "rm", NAME)
    assert (store.images(), store.layers(), store.mapped_copies()) == ((), (), [])
