"""What podman makes is nothing that ``check`` finds fault with, or that ``gc`` removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostspec.images.importing import import_image
from hostspec.store import Store
from tests.peers.clients import Place, require_program

BASE = "localhost/greeter:latest"
BUILT = "localhost/built:latest"
RECIPE = f"""
FROM {BASE}
COPY added /new/deep/added
RUN echo ran > /etc/ran && rm /etc/passwd && chmod 4711 /bin/busybox && ln -s bin /link && mkfifo /pipe
RUN rm -r /new && mkdir /new && echo 1 > /new/one && rm /link && mkdir /link && chown -R 7:8 /link
"""


@pytest.mark.parametrize("layers", ["--layers=true", "--layers=false"])
def test_images_and_containers_of_podman_are_healthy(
    place: Place, store: Store, busybox_root: str, tmp_path: Path, layers: str
) -> None:
    require_program("podman")
    (tmp_path / "added").write_text("added\n")
    (tmp_path / "Containerfile").write_text(RECIPE)
    import_image(store, busybox_root, names=[BASE])
    place.podman(
        "build", "--quiet", "--isolation", "chroot", "--pull=never", "--tag", BUILT, layers, str(tmp_path)
    )
    place.podman("create", "--name", "plain", BUILT, "true")
    place.podman("create", "--name", "mapped", "--uidmap", "0:100000:65536", BUILT, "true")

    before = store.layers(), store.images(), store.containers(), sorted(store.driver.list_layers())
    report = store.check()
    assert [str(each) for each in report.findings] == []
    assert store.repair(report, containers=True) == ()
    assert store.collect_garbage() == ()
    after = store.layers(), store.images(), store.containers(), sorted(store.driver.list_layers())
    assert after == before

    place.podman("rm", "--all", "--force")
