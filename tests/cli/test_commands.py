"""Every sub-command, run as a process on a vfs store."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from hostspec.archive.compression import Compression, detect
from hostspec.cli.main import main
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.testing.requirements import require_or_skip
from tests.cli.running import Commands
from tests.store.tars import tar_of

MAP = "0:100000:65536"


def test_a_container_under_a_map_is_made_mounted_and_deleted(hostspec: Commands, image: str) -> None:
    assert hostspec.good("create-container", "-i", "k", "-n", "web", "--uidmap", MAP, image) == "k\n\tweb\n"
    path = hostspec.good("mount", "web").strip()

    assert Path(path, "d/x").read_bytes() == b"12345"
    assert os.stat(f"{path}/d/x").st_uid == 100_000
    assert hostspec.good("mounted", "web") == "web mounted\n"
    assert hostspec.good("unmount", "web") == "web mountpoint unmounted\n"
    assert hostspec.good("mounted", "web") == ""
    assert hostspec.good("delete-container", "web") == ""
    assert hostspec.good("containers") == ""


def test_a_second_container_with_the_same_map_reuses_the_copy(hostspec: Commands, image: str) -> None:
    for name in ("one", "two"):
        hostspec.good("create-container", "-n", name, "--uidmap", MAP, "--idmap-strategy", "copy", image)

    (copy,) = json.loads(hostspec.good("mapped", "--json"))
    assert copy["strategy"] == "copy"
    assert len(copy["containers"]) == 2
    assert "0:100000:65536" in hostspec.good("mapped")


def test_a_way_that_the_driver_has_not_is_refused_with_the_reason(hostspec: Commands, image: str) -> None:
    off = ("--storage-opt", "vfs.hostspec_shifting=false")
    done = hostspec("create-container", *off, "--uidmap", MAP, "--idmap-strategy", "shift", image)

    assert (done.code, done.out) == (1, "")
    assert "shift" in done.err
    assert hostspec("create-container", "--idmap-strategy", "magic", image).err == (
        "hostspec: --idmap-strategy: 'magic' is none of auto, shift, template, copy\n"
    )


def test_mounts_are_counted(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "web", image)
    assert hostspec.good("mount", "web") == hostspec.good("mount", "web")

    assert hostspec.good("unmount", "web") == ""
    assert hostspec.good("unmount", "web") == "web mountpoint unmounted\n"
    assert hostspec.good("unmount", "web") == "web mountpoint unmounted\n"


def test_one_that_cannot_be_mounted_does_not_keep_the_others(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "web", image)

    done = hostspec("mount", "nope", "web")

    assert done.code == 1
    assert done.err.rstrip().endswith("while mounting nope")
    assert done.out.startswith(f"\n{hostspec.root}/")


def test_changes_and_diff_tell_the_same(hostspec: Commands, image: str) -> None:
    assert image
    assert hostspec.good("changes", "top") == 'Modify "/d"\nModify "/d/x"\nAdd "/n"\nDelete "/y"\n'
    assert hostspec.good("diffsize", "top") == "8\n"

    hostspec.good("diff", "-u", "-f", str(hostspec.root / "top.tar"), "top")

    with tarfile.open(hostspec.root / "top.tar") as tar:
        assert {"d/x", "n", ".wh.y"} <= set(tar.getnames())


@pytest.mark.parametrize(
    ("flag", "compression"),
    [
        ("-c", Compression.GZIP),
        ("-b", Compression.BZIP2),
        ("-x", Compression.XZ),
        ("-u", Compression.NONE),
    ],
)
def test_a_diff_is_compressed_as_asked(
    hostspec: Commands, image: str, flag: str, compression: Compression
) -> None:
    assert image
    path = hostspec.root / "diff"

    hostspec.good("diff", flag, "--file", str(path), "top")

    assert detect(path.read_bytes()[:6]) is compression
    with tarfile.open(path) as tar:
        assert "n" in tar.getnames()


def test_a_diff_comes_back_as_the_same_layer(hostspec: Commands, image: str) -> None:
    assert image
    hostspec.good("diff", "-f", str(hostspec.root / "tar"), "top")
    hostspec.good("create-layer", "-i", "again", "base")

    hostspec.good("applydiff", "-f", str(hostspec.root / "tar"), "again")

    assert hostspec.good("changes", "again") == hostspec.good("changes", "top")
    assert hostspec.good("changes", "again", "top") == ""


def test_a_broken_tar_leaves_no_layer(hostspec: Commands) -> None:
    done = hostspec("import-layer", content=tar_of({"a": b"x" * 4096})[:2048])

    assert done.code == 1
    assert hostspec.good("layers") == ""
    assert not [name for name in os.listdir(hostspec.root / "vfs") if name != "tempdirs"] or not os.listdir(
        hostspec.root / "vfs" / "dir"
    )


def test_names_are_added_set_and_taken_away(hostspec: Commands, image: str) -> None:
    hostspec.good("add-names", "-n", "second", image)
    assert hostspec.good("get-names", image) == "debian\nsecond\n"

    hostspec.good("remove-names", "-n", "debian", "image")
    assert hostspec.good("get-names", "image") == "second\n"

    hostspec.good("set-names", "-n", "third", "image")
    assert json.loads(hostspec.good("get-names", "-j", "third")) == ["third"]


def test_metadata_is_kept(hostspec: Commands, image: str) -> None:
    hostspec.good("set-metadata", "-m", "some text", image)

    assert hostspec.good("metadata", image) == "debian: some text\n"
    assert hostspec.good("metadata", "-q", image) == "some text\n"
    assert json.loads(hostspec.good("metadata", "-j", image)) == {"debian": "some text"}
    assert hostspec("set-metadata", image).code == 1


def test_deleting_an_image_deletes_its_copies_and_layers(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "web", "--uidmap", MAP, "--idmap-strategy", "copy", image)
    in_use = hostspec("delete-image", image)
    assert in_use.code == 1
    assert "in use" in in_use.err
    hostspec.good("delete-container", "web")

    would_go = json.loads(hostspec.good("delete-image", "--test", "--json", image))
    assert len(would_go[image]["deleted-layers"]) == 3
    assert hostspec("delete-image", image).code == 0

    assert hostspec.good("layers") + hostspec.good("images") == ""


def test_a_layer_on_which_another_stands_is_kept(hostspec: Commands, image: str) -> None:
    assert image
    done = hostspec("delete-layer", "base")

    assert done.code == 1
    assert "top" in done.err
    assert hostspec.good("layers", "-q") == "base\ntop\n"


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["debian"], 0, "debian: true\n"),
        (["debian", "nope"], 1, "debian: true\nnope: false\n"),
        (["-q", "debian"], 0, ""),
        (["-l", "debian"], 1, "debian: true\n"),
        (["-i", "debian"], 0, "debian: true\n"),
        (["-j", "debian"], 0, '{"debian":true}\n'),
    ],
)
def test_exists_answers_by_its_exit_code(
    hostspec: Commands, image: str, words: list[str], code: int, out: str
) -> None:
    assert image
    assert hostspec("exists", *words) == (code, out, "")


def test_a_store_is_described(hostspec: Commands, image: str) -> None:
    assert image
    status = hostspec("status")
    assert status.out == ""
    assert status.err.splitlines()[:3] == [
        f"Root: {hostspec.root}",
        f"Run Root: {hostspec.root.parent}/run",
        "Driver Name: vfs",
    ]
    facts = json.loads(hostspec.good("info", "--json", "--uidmap", MAP))
    assert (facts["layers"], facts["images"], facts["containers"]) == (2, 1, 0)
    ways = {way["name"]: way for way in facts["strategies"]}
    assert list(ways) == ["shift", "template", "copy"]
    assert ways["copy"]["possible"]
    assert not ways["template"]["possible"]
    assert all(way["reason"] for way in facts["strategies"])
    assert "WAY" in hostspec.good("info")


def test_drivers_are_listed_with_the_reason_against_each(hostspec: Commands) -> None:
    listed = {each["name"]: each for each in json.loads(hostspec.good("drivers", "--json"))}

    assert {"btrfs", "overlay", "vfs"} <= listed.keys()
    assert listed["vfs"]["usable"]
    assert all(each["usable"] != bool(each["reason"]) for each in listed.values())
    assert not hostspec.root.exists(), "looking writes nothing"


def test_versions_are_printed(hostspec: Commands) -> None:
    assert "pluggy" in json.loads(hostspec.good("version", "-j"))


def test_wipe_leaves_nothing(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "web", image)
    hostspec.good("mount", "web")

    hostspec.good("wipe")

    assert hostspec.good("layers") + hostspec.good("images") + hostspec.good("containers") == ""
    assert not any(os.scandir(hostspec.root / "vfs" / "dir"))


def test_shutdown_takes_mounts_down_only_when_forced(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "web", image)
    hostspec.good("mount", "web")

    assert hostspec("shutdown").code == 1
    hostspec.good("shutdown", "--force")
    assert hostspec.good("mounted", "web") == ""


def test_shutdown_says_which_mounts_are_busy_and_stay(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-n", "k", "--uidmap", MAP, image)
    path = hostspec.good("mount", "k").strip()
    if not is_mountpoint(path):
        require_or_skip("shifting with vfs", f"is not possible here: {path} is no mount")
    with subprocess.Popen(["sleep", "60"], cwd=path) as user:
        done = hostspec("shutdown", "--force")
        user.kill()

    assert done.code == 1
    assert "is still mounted" in done.err
    assert is_mountpoint(path)
    hostspec.good("shutdown", "--force")
    assert not is_mountpoint(path)


@pytest.mark.parametrize("command", ["images", "layers", "containers", "mapped", "df"])
def test_whatever_comes_next_takes_down_what_a_killed_command_had_mounted_for_itself(
    hostspec: Commands, image: str, command: str
) -> None:
    (made,) = json.loads(hostspec.good("image", "--json", image))
    script = f"""
from hostspec.store import open_store
store = open_store(root={str(hostspec.root)!r}, run_root={str(hostspec.run_root)!r}, driver="vfs")
with store.driver.mounted({made["layer"]!r}) as path:
    print(path, flush=True)
    input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as killed:
        assert killed.stdout is not None
        path = killed.stdout.readline().strip()
        if not is_mountpoint(path):
            require_or_skip("mounts", f"are not possible here: {path!r} is none")
        hostspec.good(command)
        assert is_mountpoint(path)
        killed.kill()
    assert is_mountpoint(path)

    hostspec.good(command)

    assert not os.path.exists(path)


def test_a_root_directory_becomes_an_image(hostspec: Commands, tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("here\n")
    (tmp_path / "more.tar").write_bytes(tar_of({"etc/.wh.name": b"", "etc/other": b"x"}))

    hostspec.good("import", "-n", "mine", "--layer", str(tmp_path / "more.tar"), str(root))

    (made,) = json.loads(hostspec.good("image", "--json", "mine"))
    assert hostspec.good("changes", made["layer"]).endswith('Delete "/etc/name"\nAdd "/etc/other"\n')


def test_global_flags_are_taken_after_the_command_too(hostspec: Commands, image: str) -> None:
    assert image
    assert main(["layers", *hostspec.store_flags, "-q"]) == 0


def test_of_several_debug_flags_the_last_counts(hostspec: Commands) -> None:
    assert "Traceback" in hostspec("--debug=false", "--debug", "get-names", "nope").err

    done = hostspec("--debug", "--debug=false", "get-names", "nope")

    assert (done.code, done.err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("junk", "words"), [(b"junk" * 300, "invalid tar header"), (b"junk", "unexpected EOF")]
)
def test_what_is_no_tar_is_refused_in_the_words_that_scripts_look_for(
    hostspec: Commands, junk: bytes, words: str
) -> None:
    hostspec.good("create-layer", "-i", "x")

    for content in (junk, gzip.compress(junk)):
        done = hostspec("apply-diff", "x", content=content)
        assert (done.code, done.out) == (1, "")
        assert words in done.err


def test_a_store_that_was_looked_into_can_be_another_ones_additional_store(
    hostspec: Commands, tmp_path: Path
) -> None:
    other = Commands(tmp_path / "other")
    assert other.good("layers") == ""

    assert hostspec.good("--storage-opt", f"vfs.imagestore={other.root}", "layers") == ""


def test_debug_shows_each_operation_of_the_driver(hostspec: Commands) -> None:
    done = hostspec("--debug", "create-layer", "-i", "x")

    assert done.out == "x\n"
    assert "vfs create x: " in done.err


def test_a_driver_that_is_not_installed_is_named(hostspec: Commands) -> None:
    done = hostspec("-s", "zfs", "layers")

    assert done.code == 1
    assert "'zfs'" in done.err
    assert "vfs" in done.err


def test_a_store_of_another_driver_says_which_file_fixed_it(hostspec: Commands, image: str) -> None:
    assert image
    done = hostspec("-s", "overlay", "layers")

    assert done.code == 1
    assert "vfs-layers/layers.json" in done.err


def test_a_reader_that_goes_away_is_no_error_message(hostspec: Commands, image: str) -> None:
    assert image
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run([*hostspec.command, "layers"], stdout=gone, stderr=subprocess.PIPE, check=False)

    assert done.stderr == b""


@pytest.mark.parametrize("quietly", [True, False])
def test_progress_is_drawn_on_a_terminal_only(hostspec: Commands, tmp_path: Path, *, quietly: bool) -> None:
    (tmp_path / "layer.tar").write_bytes(tar_of({"a": b"x" * (4 << 20)}))
    words = ["import-layer", "-i", "x", "-f", str(tmp_path / "layer.tar")]
    ours, terminal = pty.openpty()
    with os.fdopen(terminal, "wb") as their_end, open(os.devnull, "wb") as nowhere:
        done = subprocess.run(
            [*hostspec.command, *words],
            stdout=subprocess.PIPE,
            stderr=nowhere if quietly else their_end,
            check=True,
        )
    drawn = _everything(ours)

    assert done.stdout == b"x\n"
    assert (b"importing: [" in drawn) is not quietly


def _everything(descriptor: int) -> bytes:
    collected = io.BytesIO()
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while True:
            try:
                piece = file.read(4096)
            except OSError:  # the terminal's other side was closed
                break
            if not piece:
                break
            collected.write(piece)
    return collected.getvalue()
