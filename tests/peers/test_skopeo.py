"""skopeo copies images into and out of a store that hostspec uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostspec.images.importing import import_image
from hostspec.store import Image, Store
from tests.peers.busybox import GREETING
from tests.peers.clients import Place, require_program
from tests.peers.layouts import digest_in
from tests.store.tars import digest_of

NAME = "localhost/greeter:latest"
COPIED = "localhost/copied:latest"
QUIETLY = ("--quiet",)


@pytest.fixture
def image(store: Store, busybox_root: str) -> Image:
    """An image that hostspec imported."""
    require_program("skopeo")
    return import_image(store, busybox_root, names=[NAME])


def test_skopeo_describes_an_imported_image(place: Place, image: Image) -> None:
    told = json.loads(place.skopeo("inspect", "--no-tags", place.reference + NAME))
    assert told["Digest"] == image.digest
    assert told["Os"] == "linux"


def test_an_image_comes_out_with_the_digest_that_it_had(place: Place, image: Image, tmp_path: Path) -> None:
    place.skopeo("copy", *QUIETLY, "--preserve-digests", place.reference + NAME, f"oci:{tmp_path}/layout:out")
    assert digest_in(tmp_path / "layout") == image.digest


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_image_goes_in_through_hostspec_and_its_tars_come_out_through_skopeo(
    place: Place, store: Store, image: Image, tmp_path: Path, compression: str
) -> None:
    words = (*QUIETLY, "--dest-compress", "--dest-compress-format", compression)
    place.skopeo("copy", *words, place.reference + NAME, f"oci:{tmp_path}/first:it")
    store.delete_image(image.id)
    again = import_image(store, f"oci:{tmp_path}/first:it", names=[NAME])
    assert again.digest == digest_in(tmp_path / "first")
    assert again.id == image.id
    # skopeo reads the store's uncompressed tars, and would refuse one whose digest is another.
    place.skopeo("copy", *QUIETLY, "--dest-decompress", place.reference + NAME, f"dir:{tmp_path}/second")
    diff_digest = store.layer(again.layer or "").diff_digest or ""
    assert digest_of((tmp_path / "second" / diff_digest.removeprefix("sha256:")).read_bytes()) == diff_digest


def test_what_skopeo_copies_in_is_what_hostspec_imports(
    place: Place, store: Store, image: Image, tmp_path: Path
) -> None:
    place.skopeo("copy", *QUIETLY, place.reference + NAME, f"oci:{tmp_path}/layout:it")
    store.delete_image(image.id)
    place.skopeo("copy", *QUIETLY, f"oci:{tmp_path}/layout:it", place.reference + COPIED)
    theirs = store.image(COPIED)
    ours = import_image(store, f"oci:{tmp_path}/layout:it", names=[NAME])
    assert (ours.id, ours.layer) == (theirs.id, theirs.layer)  # what is there is used again
    assert set(ours.names) == {COPIED, NAME}
    store.delete_image(ours.id)
    imported = import_image(store, f"oci:{tmp_path}/layout:it", names=[NAME])
    # Both give it the same ID and the same layer, so that each finds what the other has made.
    assert (imported.id, imported.layer) == (theirs.id, theirs.layer)
    assert imported.digest == theirs.digest
    # containers/image also keeps an empty item for the signatures that there are not.
    items = {key: each for key, each in theirs.big_data_digests.items() if not key.startswith("signature-")}
    assert imported.big_data_digests == items
    with store.mounting(ours.id, read_only=True) as root:
        assert Path(root, "etc", "greeting").read_text() == GREETING
