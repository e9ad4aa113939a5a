from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.errors import InvalidRequest
from hostspec.images.references import LOCAL, Reference, normalised, parse_reference

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
    ["", "/", "a/", "/a", "a//b", "A", "a:", "a:b:c", "a@b", "a@sha256:00", "a b", "-a", "a_-b", "a:é"],
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
