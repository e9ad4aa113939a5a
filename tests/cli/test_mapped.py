"""The sub-commands about mapped copies, and what is said about the ways of ID mapping."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.cli.running import Commands
from tests.store.tars import tar_of

MAP = ("--uidmap", "0:100000:65536")
COPY = ("--idmap-strategy", "copy")
NATIVE_ONLY = ("--storage-opt", "hostspec.shift=native-only")
UNABLE = ("--storage-opt", "vfs.hostspec_shifting=false")


@pytest.fixture
def tmp_path(ext4_directory: str) -> Path:
    """Where files cannot share their blocks, so that copies are slow."""
    return Path(ext4_directory)


def age(hostspec: Commands, days: int) -> None:
    then = time.time() - days * 86_400
    for each in Path(hostspec.root, "vfs-layers/hostspec/copies").iterdir():
        os.utime(each, (then, then))


def test_warming_prints_the_copy_that_containers_then_stand_on(hostspec: Commands, image: str) -> None:
    copy = hostspec.good("warm", image, *MAP, *NATIVE_ONLY).strip()
    assert hostspec.good("warm", *MAP, *NATIVE_ONLY, image).strip() == copy
    hostspec.good("create-container", *MAP, *NATIVE_ONLY, image)
    (listed,) = json.loads(hostspec.good("mapped", "--json"))
    assert listed["layer"] == copy
    assert (listed["strategy"], listed["squashed"]) == ("copy", False)
    assert len(listed["containers"]) == 1
    assert listed["exclusive-bytes"] + listed["shared-bytes"] > 0
    assert listed["last-used"] > listed["created"]
    told = json.loads(hostspec.good("warm", image, "--json", *MAP, *COPY))
    assert told == {"layer": copy, "strategy": "reuse", "reason": f"layer {copy} carries this map already"}


def test_warming_says_when_there_is_nothing_to_make(hostspec: Commands, image: str) -> None:
    assert hostspec.good("warm", image) == (
        "nothing to make: containers show the image's files as they are (the container has no ID map)\n"
    )
    if json.loads(hostspec.good("info", "--json", *MAP))["way"] != "shift":
        pytest.skip("this kernel cannot shift here")
    assert hostspec.good("warm", image, *MAP).startswith(
        "nothing to make: containers with this map are shifted when they are mounted"
    )
    assert hostspec.good("mapped", "--json") == "[]\n"


def test_unused_copies_are_removed_when_told_to(hostspec: Commands, image: str) -> None:
    copy = hostspec.good("warm", image, *MAP, *COPY).strip()
    assert hostspec.good("mapped", "--remove-unused-for", "7d") == ""
    age(hostspec, 8)
    assert hostspec.good("mapped", "--remove-unused-for", "7d", "--test") == f"{copy}\n"
    assert json.loads(hostspec.good("mapped", "--remove-unused-for", "7d", "--json")) == [copy]
    assert hostspec.good("mapped", "--json") == "[]\n"


def test_a_time_that_is_none_is_refused(hostspec: Commands) -> None:
    done = hostspec("mapped", "--remove-unused-for", "soon")
    assert (done.code, done.err) == (
        1,
        "hostspec: --remove-unused-for soon: must be a time such as 7d, 12h or 0\n",
    )
    assert "--remove-unused-for" in hostspec("mapped", "--test").err


def test_explaining_says_which_way_and_why_and_makes_nothing(hostspec: Commands, image: str) -> None:
    text = hostspec.good("create-container", "--explain", *MAP, *UNABLE, image)
    assert text.startswith("On a mapped copy that is made by diff and apply: works with every driver\n")
    assert "To be copied first: 4 files, " in text
    assert "switched off by the option vfs.hostspec_shifting" in text
    told = json.loads(hostspec.good("create-container", "--explain", "--json", *MAP, *UNABLE, image))
    assert (told["way"], told["slow"], told["copies"]["files"]) == ("copy", True, 4)
    assert [each["name"] for each in told["strategies"]] == ["shift", "template", "copy"]
    assert hostspec.good("containers", "--json") == "[]\n"
    assert hostspec.good("mapped", "--json") == "[]\n"


def test_info_says_which_way_a_container_would_be_made(hostspec: Commands, image: str) -> None:
    assert image
    told = json.loads(hostspec.good("info", "--json", *MAP, *UNABLE))
    assert told["strategies"][0]["possible"] is False
    text = hostspec.good("info", *MAP, *NATIVE_ONLY)
    assert "Option: hostspec.shift=native-only\n" in text
    assert "shift=native-only leaves it to what the Go library can mount" in text or "shift     no" in text


def test_a_slow_copy_is_refused_or_announced_where_the_option_says_so(hostspec: Commands, image: str) -> None:
    refuse = ("--storage-opt", "hostspec.on_slow_path=refuse")
    warn = ("--storage-opt", "hostspec.on_slow_path=warn")
    refused = hostspec("create-container", *MAP, *NATIVE_ONLY, *refuse, image)
    assert (refused.code, refused.out) == (1, "")
    assert "4 files, " in refused.err
    assert f"'hostspec warm --uidmap 0:100000:65536 {image}'" in refused.err
    warned = hostspec("create-container", *MAP, *NATIVE_ONLY, *warn, image)
    assert warned.code == 0
    assert warned.err.startswith(
        f"hostspec: container of image {image} with the ID map 0:100000:65536: first"
    )
    assert warned.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_forcing_a_copy_says_that_podman_cannot_mount_it(tmp_path: Path) -> None:
    hostspec = Commands(tmp_path, driver="overlay")
    layer = hostspec.good("import-layer", "-r", content=tar_of({"file": b"x"})).strip()
    hostspec.good("create-image", "-n", "debian", layer)
    if json.loads(hostspec.good("info", "--json", *MAP))["way"] != "shift":
        pytest.skip("this kernel cannot shift here")
    done = hostspec("create-container", *MAP, *COPY, "debian")
    assert done.code == 0
    assert "hostspec: a mapped copy was asked for: podman" in done.err
    assert "cannot mount it" in hostspec.good("create-container", "--explain", *MAP, *COPY, "debian")
    hostspec.good("wipe")


def test_df_sums_up_what_there_is(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", *MAP, *COPY, image)
    told = json.loads(hostspec.good("df", "--json"))
    assert {row["kind"]: (row["layers"], row["unused"]) for row in told["rows"]} == {
        "images": (2, 1),
        "mapped copies": (1, 0),
        "containers": (1, 0),
        "others": (0, 0),
    }
    assert told["total_bytes"] == told["exclusive_bytes"] + told["shared_bytes"] > 0
    text = hostspec.good("df")
    assert text.startswith("LAYERS OF      LAYERS  UNUSED")
    assert "In all: " in text
