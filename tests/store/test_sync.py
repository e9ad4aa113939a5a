"""That a layer's data is on the disk before anything says that the layer is there."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.store import open_store
from hostspec.testing.requirements import require_or_skip
from tests.store.tars import tar_of

IMPORT = """
import sys
from hostspec.store import open_store

place, driver, sync = sys.argv[1:]
with open_store(
    root=f"{place}/graph", run_root=f"{place}/run", driver=driver, options=[f".sync={sync}"]
) as store:
    store.import_layer(f"{place}/layer.tar", layer_id="the-layer")
"""


COPY = """
import sys
from hostspec.idmap import IdMap
from hostspec.store import open_store

place, way, sync = sys.argv[1:]
with open_store(
    root=f"{place}/graph", run_root=f"{place}/run", driver="overlay", options=[f".sync={sync}"]
) as store:
    store.warm("image", idmap=IdMap.parse(["0:100000:65536"]), strategy=way)
"""


def imported(place: Path, driver: str, sync: str) -> list[str]:
    """Import a layer, and return what the process asked of the kernel, shortened, in its order."""
    (place / "layer.tar").write_bytes(tar_of({"file": b"content"}))
    return [step for step in traced(place, IMPORT, driver, sync) if step != "made"]


def copied(place: Path, way: str, sync: str) -> list[str]:
    """Make a mapped copy, and return what the process asked of the kernel, shortened, in its order."""
    with open_store(root=f"{place}/graph", run_root=f"{place}/run", driver="overlay") as store:
        layer = store.import_layer(io.BytesIO(tar_of({"file": b"content"})))
        store.create_image(layer.id, names=["image"])
    # By which call content is copied depends on the way.
    return [step for step in traced(place, COPY, way, sync) if step != "data"]


def traced(place: Path, program: str, *words: str) -> list[str]:
    """Run a program, and return what it asked of the kernel, shortened, in its order."""
    if shutil.which("strace") is None:
        require_or_skip("strace", "is not installed; Debian's package has the same name")
    log = place / "trace"
    calls = "trace=syncfs,openat,rename,renameat,renameat2,fsync,write,pwrite64"
    command = [sys.executable, "-c", program, str(place), *words]
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", calls, "-o", str(log), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if "PTRACE" in done.stderr:
        require_or_skip("strace", "it may not trace here")
    assert done.returncode == 0, done.stderr
    return [step for line in log.read_text().splitlines() if (step := step_of(line))]


def step_of(line: str) -> str:
    """Name what a line of the trace is about."""
    if "syncfs(" in line:
        return "sync"
    if "openat(" in line and "O_CREAT" in line and '"file"' in line:
        return "made"
    if re.search(r"rename\w*\(", line) and "layers.json" in line:
        return "record"
    if re.search(r"rename\w*\(", line) and "the-layer" in line and "tempdirs" in line:
        return "commit"
    if re.search(r"write\w*\(", line) and '"content"' in line:
        return "data"
    return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_the_file_system_is_synced_between_data_and_record(tmp_path: Path, driver: str) -> None:
    steps = imported(tmp_path, driver, "filesystem")
    assert steps == ["data", "sync", "commit", "sync", "record"]


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_nothing_is_synced_where_nobody_asked(tmp_path: Path) -> None:
    assert imported(tmp_path, "vfs", "none") == ["data", "commit", "record"]


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
@pytest.mark.parametrize(("sync", "syncs"), [("none", 0), ("filesystem", 2)])
@pytest.mark.parametrize("way", ["template", "copy"])
def test_a_mapped_copy_is_synced_where_an_imported_layer_is(
    tmp_path: Path, way: str, sync: str, syncs: int
) -> None:
    assert copied(tmp_path, way, sync) == ["made", *["sync"] * syncs, "record"]


def test_another_word_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"vfs\.sync=sometimes: must be none or filesystem"):
        open_store(root=str(tmp_path), run_root=str(tmp_path), driver="vfs", options=["vfs.sync=sometimes"])
