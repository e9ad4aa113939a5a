"""However large a layer is, taking it in and giving it out takes the same memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

LIMIT = 100 << 20
"""Bytes that a process may have in memory at most."""

LARGE_LAYER = """
import io, sys, tarfile
from hostspec.archive.compressing import compressing
from hostspec.archive.compression import Compression
from hostspec.store import open_store

root, run_root, tar, compression = sys.argv[1:]
SIZE = 160 << 20
PIECE = bytes(1 << 20)

class Zeros(io.RawIOBase):
    def readinto(self, buffer):
        buffer[:] = PIECE[: len(buffer)]
        return len(buffer)

with open(tar, "wb") as target, compressing(target, Compression[compression]) as stream:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for number in range(1000):
            archive.addfile(tarfile.TarInfo(f"{number:0100}"))
        large = tarfile.TarInfo("large")
        large.size = SIZE
        archive.addfile(large, Zeros())
with open_store(root=root, run_root=run_root, driver="vfs") as store:
    layer = store.import_layer(tar)
    with store.diff(layer.id) as stream:
        size = 0
        while piece := stream.read(1 << 17):
            size += len(piece)
assert size == layer.diff_size > SIZE
# Not getrusage(2): the program that started this one counts there, too.
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize("compression", ["NONE", "GZIP"])
def test_a_layer_of_many_megabytes_takes_few(compression: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / name) for name in ("graph", "run", "layer.tar")]
    words = [sys.executable, "-c", LARGE_LAYER, *arguments, compression]
    finished = subprocess.run(words, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) < LIMIT
