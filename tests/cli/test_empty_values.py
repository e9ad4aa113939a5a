"""Every sub-command with empty and missing values, through hostspec and through its peer.

A script that has an empty variable in it must fail, or not, with both alike.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import PEER, Commands
from tests.cli.test_peer import BASE, both, ordered
from tests.peers.differences import DIFFERENT_ON_EMPTY_VALUES
from tests.store.tars import tar_of

SETUP = """
import-layer -i base -r -f @base
import-layer -i one -r -f @one
create-layer -i l -n ln
create-image -i im -n img -m hello base
create-image -i spare
create-container -i k -n cn -m text im
"""

# Each line a command; ``@base`` is a tar, ``@one`` one of a single file, ``@empty`` an empty file, ``@none``
# none. What only looks, or fails, comes first.
SCRIPT = """
set-metadata -m "" im
set-metadata -m "" l
set-metadata im
set-metadata -f @none im
set-metadata -m x ""
set-metadata -m
set-metadata
metadata ""
metadata
metadata -j im
metadata l
metadata -q l
add-names ""
add-names
set-names ""
get-names ""
get-names
get-names base
get-names -j base
create-layer -j nope
import-layer -f @none
create-image -d nonsense base
create-image -d sha256:00 base
create-image nope
create-container
create-container nope
image
image ""
image -j ""
container
container ""
layer
layer ""
layer -j ""
layer -j l
images-by-digest
images-by-digest ""
images-by-digest nonsense
exists
exists ""
exists -j ""
exists -j im nope
exists -q ""
exists -l ""
mount
mount ""
mount nope
unmount
unmount ""
mounted
mounted ""
mounted -j k
changes
changes ""
changes l
changes -j l
changes -j one
changes l ""
changes base ""
diff
diff ""
diff nope
diff -f @none/such l
diffsize
diffsize ""
diffsize l
diffsize base ""
applydiff
applydiff -f @none l
copy
copy ""
copy "" l:/
copy l:/ ""
copy -o "" @base l:/x
copy -o x:y @base l:/x
copy @none l:/x
list-image-data ""
list-image-data
list-image-data im
list-container-data ""
list-layer-data ""
list-layer-data l
get-image-data im ""
get-image-data im
get-image-data "" ""
get-container-data k ""
get-layer-data l ""
get-image-data-size im ""
get-image-data-size im
get-container-data-size k ""
get-image-data-digest im ""
get-container-data-digest k nope
set-image-data -f @empty im
set-image-data -f @none im x
set-container-data -f @empty "" x
set-layer-data -f @empty nope x
get-container-dir ""
get-container-dir
get-container-run-dir nope
layer-parent-owners
layer-parent-owners ""
container-parent-owners ""
delete
delete ""
delete -j "" nope
delete-layer
delete-layer ""
delete-layer -j nope base
delete-container ""
delete-container -j nope
delete-image ""
delete-image -j "" nope im
delete-image -t spare
delete-image -t -j spare
layers -j
images -j
containers -j
set-metadata -f @empty im
add-names im
add-names -j -n x im
set-names -j im
remove-names-of-nothing im
create-layer ""
create-layer -i ""
create-layer -l ""
create-layer --uidmap ""
create-image -m "" base
create-image -d "" base
create-image -f @empty base
create-container -m "" im
create-container --uidmap "" im
create-container -f @empty im
mount -o "" k
unmount k
applydiff -f "" l
set-image-data -f @empty im x
set-container-data -f @empty k x
set-container-data -f "" k y
set-layer-data -f @empty l x
images -j
containers -j
delete-layer -j l
delete-container -j k
delete -j spare
delete-image -j im
layers -j
images -j
containers -j
shutdown
wipe -j
layers -j
"""


@pytest.fixture
def programs(ext4_directory: str) -> Iterator[tuple[Commands, Commands]]:
    yield from both(Path(ext4_directory), "vfs")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {name: str(tmp_path / name.strip("@")) for name in ("@base", "@one", "@empty", "@none")}
    Path(found["@base"]).write_bytes(BASE)
    Path(found["@one"]).write_bytes(tar_of({"file": b"1"}))
    Path(found["@empty"]).touch()
    return found


def _words(line: str, files: dict[str, str]) -> list[str]:
    words = shlex.split(line)
    for name, path in files.items():
        words = [word.replace(name, path) for word in words]
    return words


def _lines(script: str) -> list[str]:
    return script.strip().splitlines()


def test_empty_values_are_taken_as_the_peer_takes_them(
    programs: tuple[Commands, Commands], files: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    ours, peer = programs
    run = ours.through_main(capfd)
    for line in _lines(SETUP):
        for program in programs:
            program.good(*_words(line, files))
    differences = []
    for line in _lines(SCRIPT):
        words = _words(line, files)
        # In this process, which is faster, but where standard input is read: that is pytest's.
        done, theirs = (ours if "" in words else run)(*words), peer(*words)
        # What a command that fails has printed before is its own business; scripts look at the exit code.
        seen = (done.code != 0, [] if done.code else ordered(words[0], ours.comparable(done.out).strip()))
        told = [] if theirs.code else ordered(words[0], peer.comparable(theirs.out).strip())
        expected = (theirs.code != 0, told)
        if seen != expected:
            differences.append(f"{line}: {done}, but {PEER} {theirs}")
        silent = done.code and words[0] != "exists" and not done.err.startswith("hostspec: ")
        if silent and "-j" not in words:
            differences.append(f"{line} failed, and did not say why: {done}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("line", DIFFERENT_ON_EMPTY_VALUES)
def test_what_differs_on_purpose_is_refused_with_its_reason(
    hostspec: Commands, files: dict[str, str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = hostspec.through_main(capfd)
    for each in _lines(SETUP):
        assert run(*_words(each, files)).code == 0
    before = [run(kind, "-j") for kind in ("layers", "images", "containers")]

    done = run(*_words(line, files))

    assert done.code == 1
    assert done.err.startswith("hostspec: ")
    assert done.err.count("\n") == 1
    assert [run(kind, "-j") for kind in ("layers", "images", "containers")] == before
