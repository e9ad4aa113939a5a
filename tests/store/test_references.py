from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.errors import InvalidRequest
from hostspec.store import open_store
from hostspec.store.references import LOCAL, Reference, normalised, parse_reference

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:13", "docker.io/library/debian:13"),
        ("team/web", "docker.io/team/web:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("quay.io/x/y:z", "quay.io/x/y:z"),
        ("localhost/mine", "localhost/mine:latest"),
        ("localhost:5000/mine", "localhost:5000/mine:latest"),
        ("[::1]:5000/mine", "[::1]:5000/mine:latest"),
        ("Host/mine", "Host/mine:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"debian:13@{DIGEST}", f"docker.io/library/debian:13@{DIGEST}"),
        ("a__b/c--d.e:T.1-x", "docker.io/a__b/c--d.e:T.1-x"),
    ],
)
def test_a_name_is_completed_as_the_go_clients_do(name: str, expected: str) -> None:
    assert normalised(name) == expected
    assert normalised(expected) == expected


def test_a_local_name_is_completed_as_podman_does() -> None:
    assert normalised("mine", LOCAL) == "localhost/mine:latest"
    assert normalised("team/mine:1", LOCAL) == "localhost/team/mine:1"
    assert normalised("docker.io/mine", LOCAL) == "docker.io/library/mine:latest"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a:",
        "a:b:c",
        "a@b",
        "a@sha256:00",
        "a b",
        "-a",
        "a_-b",
        "a:é",
        "0" * 64,
    ],
)
def test_what_no_registry_accepts_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no image name"):
        parse_reference(name)


WORD = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)


@given(
    domain=st.none() | st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}(:[0-9]{1,4})?", fullmatch=True),
    path=st.lists(WORD, min_size=1, max_size=3).map("/".join),
    tag=st.none() | WORD,
    digest=st.sampled_from([None, DIGEST]),
)
def test_a_name_is_put_together_from_its_parts(
    domain: str | None, path: str, tag: str | None, digest: str | None
) -> None:
    parts = Reference(None if path.startswith("localhost/") else domain, path, tag, digest)
    if not path.startswith("localhost/"):
        assert parse_reference(str(parts)) == parts


def test_a_short_name_finds_what_was_made_here_before_what_came_from_a_registry(tmp_path: Path) -> None:
    with open_store(root=f"{tmp_path}/graph", run_root=f"{tmp_path}/run", driver="vfs") as store:
        pulled = store.create_image(names=["docker.io/library/busy:latest"])
        assert store.image("busy").id == store.image("docker.io/busy").id == pulled.id
        made = store.create_image(names=["localhost/busy:latest"])
        tagged = store.create_image(names=["quay.io/team/busy:1"])
        assert store.image("busy").id == store.image("busy:latest").id == made.id
        assert store.image("quay.io/team/busy:1").id == tagged.id
        assert not store.has_image("quay.io/team/busy")
        assert not store.has_image("Not A Name")
        exact = store.create_image(names=["busy"])
        assert store.image("busy").id == exact.id


def test_an_image_is_found_by_its_digest_under_its_name_and_by_its_id_with_the_algorithm(
    tmp_path: Path,
) -> None:
    manifest = {"manifest": b"{}"}
    with open_store(root=f"{tmp_path}/graph", run_root=f"{tmp_path}/run", driver="vfs") as store:
        image = store.create_image(names=["localhost/busy:1"], big_data=manifest)
        other = store.create_image(names=["quay.io/team/other:1"], big_data=manifest)
        (digest,) = image.digests
        assert other.digests == (digest,)
        assert store.image(f"busy@{digest}").id == store.image(f"busy:gone@{digest}").id == image.id
        assert store.image(f"quay.io/team/other@{digest}").id == other.id
        assert store.image(f"sha256:{image.id}").id == store.image(f"sha256:{image.id[:20]}").id == image.id
        for unknown in (
            f"third@{digest}",
            f"busy@sha256:{'0' * 64}",
            "sha256:",
            "sha256:localhost/busy:1",
            "@",
        ):
            assert not store.has_image(unknown)


def test_what_is_called_exactly_so_comes_before_an_image_that_may_be_meant(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    with open_store(root=f"{tmp_path}/graph", run_root=f"{tmp_path}/run", driver="vfs") as store:
        image = store.create_image(names=["localhost/busy:latest"])
        store.create_container(names=["busy"], container_id="container")
        store.set_metadata("busy", "of the container")
        assert store.container("container").metadata == "of the container"
        store.delete("busy")
        assert [each.id for each in store.images()] == [image.id]
        store.set_metadata("busy", "of the image")
        assert store.image(image.id).metadata == "of the image"
        store.delete("busy")
        assert store.images() == ()
