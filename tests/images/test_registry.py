"""Pulling from and pushing to a real registry, which runs for the time of a test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.images import SkopeoFailed, import_image, pull, push
from hostspec.store import Image, Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.images.layouts import Layout
from tests.store.tars import tar_of

BASE = tar_of({"etc": None, "etc/name": b"base\n"})
TOP = tar_of({"etc/name": b"top\n"}, uid=10)
SECONDS_TO_START = 120.0
LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")
TO = ["--dest-tls-verify=false"]
FROM = ["--src-tls-verify=false"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Host and port of a registry."""
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            require_or_skip(program, "is not installed; Debian's package has the same name")
    config, log = tmp_path / "registry.yml", tmp_path / "registry.log"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: '{tmp_path}/registry'}}}}\n"
        # Any free port: one that was looked for here could be somebody else's by the time it is used.
        "http: {addr: '127.0.0.1:0'}\n"
    )
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=output, stderr=output, env=environment
        ) as process,
    ):
        try:
            yield address_in(log, process)
        finally:
            process.kill()


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where a registry listens, as soon as it has written it."""
    end = time.monotonic() + SECONDS_TO_START
    while (found := LISTENING.search(log.read_text(errors="replace"))) is None:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, "the registry does not start"
        time.sleep(0.02)
    return found[1]


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    layout = Layout(tmp_path / "layout")
    layout.image(BASE, TOP)
    return import_image(store, f"oci:{layout.path}", names=["localhost/mine:latest"])


def test_an_image_goes_to_a_registry_and_comes_back_the_same(
    store: Store, image: Image, registry: str, tmp_path: Path
) -> None:
    push(store, "localhost/mine:latest", f"{registry}/team/mine:1", flags=TO)

    with open_store(root=f"{tmp_path}/g", run_root=f"{tmp_path}/r", driver="vfs") as other:
        pulled = pull(other, f"{registry}/team/mine:1", flags=FROM)
        assert pulled.id == image.id
        assert pulled.names == (f"{registry}/team/mine:1",)
        with other.mounting(pulled.id, read_only=True) as root:
            assert Path(root, "etc/name").read_bytes() == b"top\n"


def test_what_was_pushed_can_be_pulled_into_the_same_store(store: Store, image: Image, registry: str) -> None:
    before = store.layers()
    push(store, image.id, f"{registry}/mine", flags=TO)

    pulled = pull(store, f"{registry}/mine", flags=FROM)

    assert pulled.id == image.id
    assert store.layers() == before
    # Compressed on the way, so another manifest describes it as well.
    assert {image.digest} < set(pulled.digests)


def test_an_image_is_pushed_to_the_registry_in_its_name(store: Store, image: Image, registry: str) -> None:
    store.add_names(image.id, [f"{registry}/named:2"])

    push(store, f"{registry}/named:2", flags=TO)

    assert pull(store, f"docker://{registry}/named:2", flags=FROM).id == image.id


def test_an_image_with_a_store_of_its_own_is_pulled_there(
    store: Store, image: Image, registry: str, tmp_path: Path
) -> None:
    push(store, image.id, f"{registry}/mine", flags=TO)

    with open_store(
        root=f"{tmp_path}/g", run_root=f"{tmp_path}/r", driver="vfs", image_store=f"{tmp_path}/images"
    ) as split:
        pulled = pull(split, f"{registry}/mine", flags=FROM)
        assert os.path.isdir(f"{tmp_path}/images/vfs-images/{pulled.id}")
        push(split, pulled.id, f"{registry}/again", flags=TO)
    assert pull(store, f"{registry}/again", flags=FROM).id == image.id


def test_what_a_registry_does_not_have_is_an_error_that_says_so(store: Store, registry: str) -> None:
    with pytest.raises(SkopeoFailed, match="manifest unknown"):
        pull(store, f"{registry}/nothing", flags=FROM)
    with pytest.raises(SkopeoFailed, match="HTTPS"):
        pull(store, f"{registry}/nothing")
