"""Data, directories, copies and other sub-commands, on a store each, beside Debian's containers-storage."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.cli.surface import COMMANDS
from hostspec.kernel.resolve import has_openat2
from tests.cli.running import Commands
from tests.cli.test_peer import both
from tests.store.tars import tar_of

BASE = tar_of({"etc": None, "etc/passwd": b"root", "home": None}, uid=7, gid=8)
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:5b3ae6a4c8ee7e6b7a1ba0a5f1a2b5d5c1c0a7b9a3f7c5d3e1f2a4b6c8d0e2f4"
DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"

# ``<`` before a word: it is standard input. They build on each other, so they run in this order.
SCRIPT = f"""
list-image-data im
list-image-data -j im
set-image-data im key <data
set-image-data im manifest <{{}}
set-image-data im Big/Key <more
set-image-data im key <other
set-image-data nope key <data
list-image-data im
list-image-data -j im
list-image-data nope
get-image-data im key
get-image-data im key more
get-image-data im Big/Key
get-image-data -f @out im key
get-image-data im nope
get-image-data nope key
get-image-data-size im key
get-image-data-size im nope
get-image-data-size nope key
get-image-data-digest im key
get-image-data-digest im nope
get-image-data-digest nope key
images
images -j
images-by-digest sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
images-by-digest -q sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
images-by-digest -j sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
images-by-digest {DIGEST}
images-by-digest -j {DIGEST}
images-by-digest nope
list-container-data k
list-container-data -j k
set-container-data k key <data
list-container-data k
get-container-data k key
get-container-data k nope
get-container-data nope key
get-container-data-size k key
get-container-data-size k nope
get-container-data-digest k key
get-container-data-digest k nope
container -j k
list-layer-data base
set-layer-data base key <data
set-layer-data base key more <data
set-layer-data base "" <data
list-layer-data -j base
get-layer-data base key
get-layer-data base nope
get-layer-data nope key
layer -j base
get-container-dir k
get-container-run-dir k
get-container-dir nope
layer-parent-owners base
layer-parent-owners -j base
layer-parent-owners base nope
container-parent-owners k
container-parent-owners -j k
container-parent-owners nope
create-container --volatile -j -i v im
copy @tree w:/
copy @tree w:/new
copy @tree/sub/x w:/file
copy --chown 7:8 @tree w:/owned
copy --chown 9 @tree/sub/x w:/nine
copy --chown root @tree w:/root
copy base:/etc w:/etc
copy base:etc/passwd w:relative
copy base:/nope w:/nope
copy nope:/etc w:/etc
copy base:/etc @out.d
copy @tree/link w:/link
copy @tree/sub/x w:/new
""".strip().splitlines()


@pytest.fixture
def programs(ext4_directory: str) -> Iterator[tuple[Commands, Commands]]:
    for each in both(Path(ext4_directory), "vfs"):
        for program in each:
            program.good("import-layer", "-i", "base", "-r", content=BASE)
            program.good("create-layer", "-i", "w")
            program.good("create-image", "-i", "im", "base")
            program.good("create-container", "-i", "k", "im")
        yield each


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "x").write_bytes(b"content")
    os.chown(tree / "sub" / "x", 3, 4)
    (tree / "link").symlink_to("sub/x")
    return {"@tree": str(tree), "@out": str(tmp_path / "out")}


def test_the_rest_of_the_commands_answer_as_the_peers_do(
    programs: tuple[Commands, Commands], files: dict[str, str]
) -> None:
    differences = []
    for line in SCRIPT:
        words = [re.sub(r"@(tree|out)", lambda found: files[found[0]], word) for word in line.split(" ")]
        content = b"".join(word[1:].encode() for word in words if word.startswith("<"))
        words = [word.strip('"') for word in words if not word.startswith("<")]
        done, expected = (program(*words, content=content) for program in programs)
        seen = (done.code != 0, programs[0].comparable(done.out))
        wanted = (expected.code != 0, programs[1].comparable(expected.out))
        if seen != wanted:
            differences.append(f"{line}: {done} but the peer {expected}")
        if done.code == 0 and done.err:
            differences.append(f"{line} succeeded, and yet said {done.err}")
    assert not differences, "\n".join(differences)

    trees = [_described(program.root / "vfs" / "dir" / "w") for program in programs]
    assert trees[0] == trees[1]


def _described(tree: Path) -> list[tuple[str, int, int, int, bytes]]:
    found = []
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        owner = status.st_uid, status.st_gid
        found.append((str(path.relative_to(tree)), *owner, status.st_mode, content))
    return found


def test_an_item_that_is_missing_is_said_in_the_words_that_scripts_look_for(hostspec: Commands) -> None:
    hostspec.good("create-image", "-i", "im", "")

    assert "image not known" in hostspec("get-image-data", "nope", "key").err
    assert "does not exist" in hostspec("get-image-data", "im", "key").err


@pytest.mark.parametrize("kind", ["image", "container"])
def test_an_objects_directories_exist_below_the_two_roots(hostspec: Commands, image: str, kind: str) -> None:
    hostspec.good("create-container", "-i", "k", image)
    reference = {"image": image, "container": "k"}[kind]

    for command, root in ((f"get-{kind}-dir", "graph"), (f"get-{kind}-run-dir", "run")):
        path = Path(hostspec.good(command, reference).strip())
        assert path.is_dir()
        assert path.is_relative_to(hostspec.root.parent / root)


def test_a_layer_of_the_driver_alone_is_in_no_record(hostspec: Commands, image: str) -> None:
    assert hostspec.good("create-storage-layer", "-i", "hidden", "top") == "hidden\n"

    assert hostspec.good("storage-layers").splitlines() == ["base", "hidden", "top"]
    assert json.loads(hostspec.good("storage-layers", "-j")) == ["base", "hidden", "top"]
    assert "hidden" not in hostspec.good("layers")
    assert hostspec("create-storage-layer", "-i", "hidden").code == 1
    assert image


def test_a_layer_is_filled_with_the_files_of_a_directory(hostspec: Commands, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_text("content")
    os.chown(source / "d" / "file", 5, 6)
    hostspec.good("create-layer", "-i", "filled")

    assert hostspec.good("applydiff-using-staging-dir", "filled", str(source)) == ""

    assert hostspec.good("changes", "filled") == 'Add "/d"\nAdd "/d/file"\n'
    root = Path(hostspec.good("mount", "filled").strip())
    found = os.stat(root / "d" / "file")
    assert ((root / "d" / "file").read_text(), found.st_uid, found.st_gid) == ("content", 5, 6)
    hostspec.good("unmount", "filled")
    (record,) = json.loads(hostspec.good("layer", "--json", "filled"))
    assert record["diff-digest"].startswith("sha256:")


def test_a_layer_that_holds_something_is_not_overwritten_by_a_directory(
    hostspec: Commands, image: str, tmp_path: Path
) -> None:
    done = hostspec("applydiff-using-staging-dir", "top", str(tmp_path))

    assert (done.code, done.out) == (1, "")
    assert "layer top: is not empty" in done.err
    assert "is no directory" in hostspec("applydiff-using-staging-dir", "top", "/nowhere").err
    assert image


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_copy_into_a_mapped_container_belongs_to_the_mapped_root(
    ext4_directory: str, files: dict[str, str], driver: str
) -> None:
    program = Commands(Path(ext4_directory), driver=driver)
    program.good("import-layer", "-i", "base", "-r", content=BASE)
    program.good("create-image", "-i", "im", "base")
    program.good("create-container", "-i", "k", "--uidmap", "0:100000:65536", "im")

    program.good("copy", files["@tree"], "k:/new")
    program.good("copy", "--chown", "1:2", files["@tree"], "k:/home")
    program.good("copy", "k:/etc/passwd", files["@out"])

    root = Path(program.good("mount", "k").strip())
    owners = {path: (found.st_uid, found.st_gid) for path in ("new", "new/sub/x", "home/sub/x")
              for found in [(root / path).stat()]}  # fmt: skip
    assert owners == {
        "new": (100000, 100000), "new/sub/x": (100003, 100004), "home/sub/x": (100001, 100002)
    }  # fmt: skip
    back = Path(files["@out"]).stat()
    assert (back.st_uid, back.st_gid) == (7, 8)
    program.good("unmount", "k")
    program.good("wipe")


@pytest.mark.parametrize("openat2", [True, False])
def test_no_link_in_a_layer_leads_a_copy_out_of_it(
    hostspec: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, openat2: bool
) -> None:
    if openat2 and not has_openat2():
        pytest.skip("this kernel has no openat2")
    monkeypatch.setenv("HOSTSPEC_NO_OPENAT2", "" if openat2 else "1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    source = tmp_path / "source"
    source.write_text("mine")
    hostspec.good("create-layer", "-i", "w")
    root = Path(hostspec.good("mount", "w").strip())
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../../../../../../../../../.." + str(outside))
    (root / "file").symlink_to(outside / "secret")

    for target in ("w:/out/planted", "w:/up/planted", "w:/file", "w:/../../../../planted"):
        hostspec("copy", str(source), target)
    stolen = tmp_path / "stolen"
    for wanted in ("w:/out/secret", "w:/file", "w:/up/secret"):
        hostspec("copy", wanted, str(stolen))

    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert not stolen.exists() or stolen.read_text() == "mine"
    assert (root / "planted").read_text() == "mine"
    assert not list(root.rglob(".hostspec-copy-*"))
    hostspec.good("unmount", "w")


def test_a_file_goes_into_a_directory_whose_name_ends_in_a_slash(
    hostspec: Commands, files: dict[str, str]
) -> None:
    hostspec.good("create-layer", "-i", "w")
    hostspec.good("copy", f"{files['@tree']}/sub/x", f"{files['@tree']}/link", "w:/into/")

    assert hostspec.good("changes", "w").splitlines() == ['Add "/into"', 'Add "/into/x"']


def test_mount_options_are_obeyed_or_refused_by_name(hostspec: Commands, image: str) -> None:
    hostspec.good("create-container", "-i", "k", image)

    done = hostspec("mount", "-o", "noexec", "k")

    assert done.code == 1
    assert "noexec" in done.err
    assert hostspec.good("mounted", "k") == ""


def test_config_has_the_names_of_the_go_librarys_options(hostspec: Commands, tmp_path: Path) -> None:
    file = tmp_path / "storage.conf"
    file.write_text(
        '[storage]\ndriver = "vfs"\ngraphroot = "/g"\nrunroot = "/r"\nimagestore = "/i"\n'
        'driver_priority = ["vfs"]\n[storage.options]\nroot-auto-userns-user = "me"\n'
        "auto-userns-min-size = 1\nauto-userns-max-size = 2\ndisable-volatile = true\n"
        'additionalimagestores = ["/other"]\npull_options = {enable_partial_images = "true"}\n'
    )

    found = json.loads(hostspec.good("config", str(file)))

    # In the order of the fields of StoreOptions in types/options.go.
    assert list(found) == [
        "runroot", "root", "imagestore", "driver", "driver-priority", "driver-options",
        "root_auto_ns_user", "auto_userns_min_size", "auto_userns_max_size", "PullOptions",
        "disable-volatile",
    ]  # fmt: skip
    assert found["PullOptions"] == {"enable_partial_images": "true"}


def test_config_prints_what_the_files_say(hostspec: Commands, tmp_path: Path) -> None:
    file = tmp_path / "storage.conf"
    file.write_text('[storage]\ndriver = "vfs"\ngraphroot = "/g"\nrunroot = "/r"\ntransient_store = true\n')

    found = json.loads(hostspec.good("config", str(file)))

    assert found["driver"] == "vfs"
    assert found["transient_store"] is True
    # As the Go library does, which gives this one no rule about being empty.
    assert found["PullOptions"] is None


def test_unshare_runs_a_command_as_root_of_a_namespace_and_passes_on_its_exit_code(
    hostspec: Commands,
) -> None:
    own = os.readlink("/proc/self/ns/user")

    assert hostspec.good("unshare", "readlink", "/proc/self/ns/user").strip() != own
    assert hostspec.good("unshare", "id", "-u") == "0\n"
    assert hostspec("unshare", "sh", "-c", "exit 3").code == 3
    assert hostspec("unshare", "/no/such/program").code == 127


def test_the_document_has_every_command() -> None:
    headings = re.findall(r"^### `(.+?)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(headings) == sorted(command.names[0] for command in COMMANDS)


def test_the_ranges_of_a_user_who_has_none_are_refused(hostspec: Commands) -> None:
    done = hostspec("create-layer", "--subuidmap", "no-such-user")

    assert done.code == 1
    assert "no-such-user" in done.err
    assert hostspec.good("layers") == ""
