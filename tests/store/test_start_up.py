from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LISTING = """
import sys
from hostspec.store import open_store
with open_store(root=sys.argv[1], run_root=sys.argv[2], driver="vfs") as store:
    print(len(store.layers()), len(store.images()), len(store.containers()))
print(*sys.modules)
"""

COSTLY = {
    *("argparse", "ctypes", "dataclasses", "hashlib", "importlib.metadata", "inspect", "isal", "logging"),
    *("pathlib", "pluggy", "shutil", "subprocess", "tarfile", "tempfile", "xattr", "zstandard"),
    *("hostspec.driver", "hostspec.hookspecs", "hostspec.values"),
    *("tomllib", "hostspec.store.configuration.default_store", "hostspec.store.split_driver"),
}


def test_listing_a_store_imports_little(tmp_path: Path) -> None:
    roots = [str(tmp_path / "graph"), str(tmp_path / "run")]
    words = [sys.executable, "-c", LISTING, *roots]
    counts, modules = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert counts == "0 0 0"
    assert COSTLY & (set(modules.split()) - set(plain.stdout.split())) == set()
    assert not (tmp_path / "graph").exists()
