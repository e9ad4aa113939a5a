"""Whatever tar comes, its layer gives it back bit by bit, or there is an error and nothing else."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from hostspec.errors import InvalidArchive
from hostspec.store import Store, open_store
from tests.archive.handmade import directory, file, handmade, hard_link, symlink
from tests.store.tars import digest_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

FORMS = {
    "v7": ["--format=v7"],
    "ustar": ["--format=ustar"],
    "old GNU, sparse": ["--format=oldgnu", "-S"],
    "GNU, sparse": ["--format=gnu", "-S"],
    "GNU, one block a record, a label": ["--format=gnu", "-b", "1", "--label=label"],
    "PAX 0.0, sparse": ["--format=posix", "-S", "--sparse-version=0.0"],
    "PAX 0.1, sparse": ["--format=posix", "-S", "--sparse-version=0.1"],
    "PAX 1.0, sparse": ["--format=posix", "-S", "--sparse-version=1.0"],
}
TAR = handmade(
    directory("d"),
    file("d/f", b"1" * 700),
    file("n" * 120, b"2"),
    symlink("link", "d"),
    hard_link("again", "d/f"),
    file("ü", b"3" * 1500),
).getvalue()
END = len(TAR.rstrip(b"\0"))
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\0\0\0abcde"


def halves(pack: Callable[[bytes], bytes], *, between: bytes = b"") -> bytes:
    return pack(TAR[:1000]) + between + pack(TAR[1000:])


COMPRESSED = {
    "gzip": gzip.compress(TAR),
    "gzip, two members, padded": halves(gzip.compress) + bytes(100),
    "bzip2, two streams": halves(bz2.compress),
    "xz, two streams, padded": halves(lzma.compress, between=bytes(8)) + bytes(4),
    "zstd, two frames": halves(zstandard.compress),
    "zstd, frames to skip": SKIPPABLE + halves(zstandard.compress, between=SKIPPABLE) + SKIPPABLE,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(root=f"{tmp_path}/graph", run_root=f"{tmp_path}/run", driver="vfs") as found:
        yield found


def comes_back(store: Store, blob: bytes, tar: bytes) -> None:
    layer = store.import_layer(io.BytesIO(blob))
    assert (layer.diff_digest, layer.diff_size) == (digest_of(tar), len(tar))
    assert (layer.compressed_digest, layer.compressed_size) == (digest_of(blob), len(blob))
    with store.diff(layer.id) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == hashlib.sha256(tar).hexdigest()
    store.delete_layer(layer.id)


def nothing_is_left(store: Store) -> bool:
    records = Path(store.root, "vfs-layers")
    trees = Path(store.root, "vfs/dir")
    unfinished = list(Path(store.root, "vfs/tempdirs").glob("*/*/*"))
    return (
        store.layers() == ()
        and not [each for each in records.iterdir() if "tar-split" in each.name]
        and not (trees.exists() and list(trees.iterdir()))
        and not unfinished
    )


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_what_gnu_tar_writes_comes_back(options: list[str], store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as sparse:
        for number in range(30):
            sparse.seek(number << 17)
            sparse.write(b"data" * 700)
    (source / "file").write_bytes(b"x" * 513)
    (source / "again").hardlink_to(source / "file")
    command = ["tar", "-c", *options, "-C", str(tmp_path), "source"]
    tar = subprocess.run(command, check=True, capture_output=True).stdout
    comes_back(store, tar, tar)
    comes_back(store, gzip.compress(tar), tar)


@pytest.mark.parametrize("blob", COMPRESSED.values(), ids=COMPRESSED)
def test_a_tar_comes_back_however_it_was_compressed(blob: bytes, store: Store) -> None:
    comes_back(store, blob, TAR)


@pytest.mark.parametrize(
    "tar",
    [b"", bytes(512), bytes(10_240), TAR + b"garbage", TAR + bytes(777), TAR + TAR, TAR[:END]],
    ids=["nothing", "zeros", "a-record-of-zeros", "garbage", "more-zeros", "two-tars", "no-end"],
)
def test_what_follows_the_last_member_comes_back(tar: bytes, store: Store) -> None:
    comes_back(store, tar, tar)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_tar_cut_off_at_any_block_comes_back_or_leaves_nothing(
    pack: Callable[[bytes], bytes], store: Store
) -> None:
    refused = 0
    for length in range(0, len(TAR) + 1, 512):
        cut = TAR[:length]
        try:
            comes_back(store, pack(cut), cut)
        except InvalidArchive:
            refused += 1
        assert nothing_is_left(store)
    assert refused > 4


@pytest.mark.parametrize("blob", COMPRESSED.values(), ids=COMPRESSED)
def test_a_compressed_tar_that_is_cut_off_leaves_nothing(blob: bytes, store: Store) -> None:
    for length in range(10, len(blob) // 3, 97):
        with pytest.raises(InvalidArchive):
            store.import_layer(io.BytesIO(blob[:length]))
        assert nothing_is_left(store)
