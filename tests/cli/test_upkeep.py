from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hostspec.cli.grammar import UsageError
from hostspec.cli.upkeep import seconds
from tests.cli.running import Commands
from tests.store.tars import tar_of

EMPTY: dict[str, object] = {"Layers": {}, "ROLayers": {}, "Images": {}, "ROImages": {}, "Containers": {}}


def damage(hostspec: Commands) -> None:
    (hostspec.root / "vfs/dir/top/n").write_bytes(b"NEW")


@pytest.mark.usefixtures("image")
def test_a_healthy_store_is_checked_in_silence(hostspec: Commands) -> None:
    hostspec.good("create-container", "-i", "k", "debian")
    for flags in ((), ("-q",), ("--repair",), ("-f",), ("-r", "-f", "--max=1h30m")):
        assert hostspec.good("check", *flags) == ""
    assert json.loads(hostspec.good("check", "-j")) == EMPTY
    assert hostspec.good("containers") == "k\n"
    assert hostspec.good("layers", "-q").splitlines()[:2] == ["base", "top"]


@pytest.mark.usefixtures("image")
def test_damage_is_listed_by_object_and_removed(hostspec: Commands) -> None:
    damage(hostspec)
    done = hostspec("check")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == "layer top:"
    assert lines[1].startswith(" layer top: layer content incorrect digest: ")
    assert "image image:" in lines
    assert "base" not in done.out
    expected = "1 layer errors, 0 read-only layer errors, 1 image errors, 0 read-only image errors, "
    assert done.err == f"hostspec: {expected}0 container errors\n"
    found = json.loads(hostspec("check", "-j").out)
    assert {name: list(part) for name, part in found.items() if part} == {
        "Layers": ["top"],
        "Images": ["image"],
    }
    repaired = hostspec("check", "-r")
    assert (repaired.code, repaired.err) == (0, "")
    assert hostspec.good("images") == ""
    assert hostspec.good("layers", "-q") == ""
    assert hostspec.good("check", "-m", "0") == ""


@pytest.mark.usefixtures("image")
def test_damaged_containers_go_only_by_force(hostspec: Commands) -> None:
    hostspec.good("create-container", "-i", "k", "debian")
    damage(hostspec)
    assert hostspec("check", "-r").code == 1
    assert hostspec.good("containers", "-q") == "k\n"
    assert hostspec("check", "--force").code == 0
    assert hostspec.good("containers", "-q") == ""
    assert hostspec.good("check") == ""


@pytest.mark.usefixtures("image")
def test_a_damaged_layer_of_a_container_stays_in_the_words_that_scripts_look_for(hostspec: Commands) -> None:
    hostspec.good("create-container", "-i", "k", "debian")
    (container,) = json.loads(hostspec.good("container", "-j", "k"))
    hostspec.good("delete", "image", "top")

    done = hostspec("check", "-r")

    assert done.code == 1
    expected = f"layer {container['layer']} used by container k: layer is in use by a container"
    assert expected in done.err
    assert " container k: image image: image missing" in done.out.splitlines()


@pytest.mark.usefixtures("image")
def test_how_old_an_unused_layer_may_be_is_told_by_a_flag(hostspec: Commands) -> None:
    hostspec.good("create-layer", "-i", "unused")
    assert hostspec.good("check") == ""
    assert hostspec.good("check", "-m", "1h") == ""
    done = hostspec("check", "-m", "0")
    assert done.code == 1
    assert done.out == "layer unused:\n layer unused: layer not referenced by any images or containers\n"
    assert hostspec("check", "-r", "--max=0").code == 0
    assert hostspec("exists", "-q", "unused").code == 1
    assert hostspec("check", "--max", "soon").code == 1
    assert hostspec.good("images", "-q") == "image\n"


def test_durations_are_those_of_go() -> None:
    assert seconds("24h") == 86_400
    assert seconds("1h30m") == 5_400
    assert seconds("1.5h") == 5_400
    assert seconds("250ms") == 0.25
    assert seconds("0") == 0
    assert seconds("-1m") == -60
    for text in ("24", "h", "", "1d", "1h 2m", "1h-2m"):
        with pytest.raises(UsageError):
            seconds(text)


@pytest.mark.usefixtures("image")
def test_garbage_is_collected_without_a_word(hostspec: Commands) -> None:
    stray = hostspec.root / "vfs/dir/stray"
    stray.mkdir()
    tar_split = hostspec.root / "vfs-layers/stray.tar-split.gz"
    tar_split.write_bytes(b"x")
    assert hostspec.good("gc") == ""
    assert not stray.exists()
    assert not tar_split.exists()
    assert hostspec.good("layers", "-q") == "base\ntop\n"
    assert hostspec.good("gc", "-j") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_where_blocks_cannot_be_shared_nothing_is_saved(ext4_directory: str) -> None:
    commands = Commands(Path(ext4_directory))
    commands.good("import-layer", "-i", "one", content=tar_of({"a": b"x" * 9000, "b": b"x" * 9000}))
    commands.good("create-image", "one")
    assert commands.good("dedup") == "Deduplicated 0 bytes\n"
    assert commands.good("dedup", "-j") == '{"Deduped":0}\n'
    commands.good("wipe")


def test_what_is_saved_is_printed(xfs_directory: str) -> None:
    commands = Commands(Path(xfs_directory))
    commands.good("import-layer", "-i", "one", content=tar_of({"a": b"x" * 9000, "b": b"x" * 9000}))
    commands.good("create-image", "one")
    assert commands.good("dedup") == "Deduplicated 9000 bytes\n"
    for method in ("crc", "size", "sha256"):
        assert commands.good("dedup", "-j", "--hash-method", method) == '{"Deduped":9000}\n'
    assert commands("dedup", "--hash-method", "md5").code == 1
    commands.good("wipe")
