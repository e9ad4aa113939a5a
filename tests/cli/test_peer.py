"""The same commands, on a store each, through hostspec and through Debian's containers-storage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import unmount
from hostspec.testing.requirements import require_or_skip
from tests.cli.running import PEER, Commands, Done
from tests.store.tars import tar_of

MAP = "0:100000:65536"
GID_MAP = "0:200000:65536"
BASE = tar_of({"d": None, "d/x": b"1", "y": b"22"}, uid=7)
TOP = tar_of({"d/x": b"12345", ".wh.y": b"", 'a "name" of\tmany': b"new"}, gid=8)
ODD = tar_of({"<&>\udcff\u2028é": b""})

# Each line a command; ``@NAME`` is a tar below. They build on each other, so they run in this order.
# No ID is a hexadecimal number: it might abbreviate one that was drawn at random.
SCRIPT = """
layers
images
containers
create-layer -i l0
create-layer -n one -n two -i l1
create-layer -i l2 -n three one
create-layer -i l1
create-layer nope
create-layer -n one
create-layer --hostuidmap --uidmap 0:1:1
create-layer --uidmap 0:100000
import-layer -i base -n lower -r -f @base
import-layer -i top -n upper -r -f @top lower
import-layer -i odd -f @odd
layers
layers -t
layer base
layer top upper
layer -j base
layer -j top
create-image -i im1 -n img1 -n img1b -m hello top
create-image -i im2 -n img2 -m two ""
create-image -i im3
create-image -n img1 top
images
images -q
images -j
image img1 im3
image -j img2
create-container -i k1 im1
create-container -i k2 -m text img1
create-container -i k3 ""
create-container nope
layers
containers
containers -j
containers more
images more and more
layers more
container k1 k2
get-container-dir k1 more
exists im1
exists -q im1
exists -q nope
exists -l base
exists -i base
exists -c k1
mount k1
mount k1
mounted k1
mounted k1 k2
mounted -j k1 k2
mount k2 nope k1
unmount -j k2
unmount k1
unmount k1
unmount k1
unmount k1
mounted k1
mounted nope
mount top
unmount top
unmount -f top
changes top
changes odd
changes -j odd
changes top base
diffsize top
diff-size base
diff -u -f @out top
diff -u -c -f @out top
applydiff -f @base l0
layer -j l0
get-names im1
getnames l1
get-names im1 more
add-names -n zwei im1 more
get-names im1
set-names -n only im1
get-names im1
set-names -n two im2
set-names -n three l0
get-names l2
images -j
metadata im1
metadata -q im1
metadata im1 im2
set-metadata -m new im1
metadata im1
metadata -j im1
metadata -j im2 im1 k2 k1
exists -j im2 im1
set-metadata im1
set-metadata -m x nope
delete-layer base
delete-layer l2
delete-layer l1
delete-image im1
delete-container k1
delete-container nope
delete-container k2
delete-image -t im1
delete-image im1
delete-layer nope
delete im2
delete im3 k3 nope
layers
images
containers
layers --nonsense
shutdown
shutdown -f
wipe
layers
""".strip().splitlines()


@pytest.fixture
def tars(tmp_path: Path) -> dict[str, str]:
    files = {f"@{name}": tmp_path / f"{name}.tar" for name in ("base", "top", "odd", "out")}
    files["@base"].write_bytes(BASE)
    files["@top"].write_bytes(TOP)
    files["@odd"].write_bytes(ODD)
    return {name: str(path) for name, path in files.items()}


def both(directory: Path, driver: str) -> Iterator[tuple[Commands, Commands]]:
    if os.geteuid() != 0:
        pytest.skip(f"{PEER} works as root only")
    if shutil.which(PEER) is None:
        require_or_skip(PEER, "is not installed; Debian's package has the same name")
    places = [directory / "ours", directory / "peer"]
    for place in places:
        place.mkdir()
    yield Commands(places[0], driver=driver), Commands(places[1], driver=driver, program=(PEER,))
    for mount_point in mount_points(str(directory)):
        unmount(mount_point, lazy=True)


@pytest.fixture(params=["overlay", "vfs"])
def programs(request: pytest.FixtureRequest, ext4_directory: str) -> Iterator[tuple[Commands, Commands]]:
    yield from both(Path(ext4_directory), request.param)


@pytest.fixture
def programs_on_btrfs(btrfs_directory: str) -> Iterator[tuple[Commands, Commands]]:
    yield from both(Path(btrfs_directory), "btrfs")


def _compare(
    programs: tuple[Commands, Commands], tars: dict[str, str], run: Callable[..., Done] | None = None
) -> None:
    ours, peer = programs
    differences = []
    for line in SCRIPT:
        words = [tars.get(word, word).strip('"') for word in line.split(" ")]
        done, theirs = (run or ours)(*words), peer(*words)
        # Only success and failure can be compared: the peer says 125 where it does not understand.
        seen = (done.code != 0, ordered(words[0], ours.comparable(done.out)))
        expected = (theirs.code != 0, ordered(words[0], peer.comparable(theirs.out)))
        if seen != expected:
            differences.append(f"{line}: {done} but the peer {theirs}")
        # As the peer does, the layers that went with an image are named on standard error.
        talks = done.code != 0 or words[0] == "delete-image"
        assert talks or not done.err, f"{line} succeeded, and yet said {done.err}"
    assert not differences, "\n".join(differences)


def ordered(command: str, output: str) -> list[str]:
    lines = output.splitlines()
    # By path; the peer's order is that of a walk, which says nothing.
    return sorted(lines) if command == "changes" else lines


def test_hostspec_answers_as_its_peer_does(programs: tuple[Commands, Commands], tars: dict[str, str]) -> None:
    _compare(programs, tars)


def test_main_answers_as_the_peer_does_on_btrfs(
    programs_on_btrfs: tuple[Commands, Commands], tars: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    _compare(programs_on_btrfs, tars, programs_on_btrfs[0].through_main(capfd))


def test_a_mapped_container_looks_as_the_peers(
    programs: tuple[Commands, Commands],
) -> None:
    # Names of more than one character: the peer leaves others at the top level to their old owners.
    base = tar_of({"etc": None, "etc/name": b"1"}, uid=7, gid=8)
    owners = []
    for program in programs:
        program.good("import-layer", "-i", "base", "-r", content=base)
        program.good("create-image", "-i", "image", "base")
        program.good("create-container", "-i", "k", "--uidmap", MAP, "--gidmap", GID_MAP, "image")
        root = program.good("mount", "k").strip()
        # Not the root directory, which the peer leaves to the host's root where no tar has it.
        paths = [os.path.join(at, name) for at, *kinds in os.walk(root) for names in kinds for name in names]
        found = [os.lstat(path) for path in sorted(paths)]
        owners.append([(each.st_uid, each.st_gid, each.st_mode) for each in found])
        program.good("unmount", "k")

    assert owners[0] == owners[1]
