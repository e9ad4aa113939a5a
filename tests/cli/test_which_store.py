"""Which store a command line works on: by flags, by configuration files, by the environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.kernel.mountinfo import mount_points
from hostspec.kernel.mounts import unmount
from hostspec.testing.requirements import require_or_skip
from tests.cli.running import PEER, Done

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")

OURS = (sys.executable, "-c", "import sys; from hostspec.cli.main import main; sys.exit(main())")


class Machine:
    """A machine with one configuration file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {"CONTAINERS_STORAGE_CONF": self.write("storage.conf", "")}

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text.replace("HERE", str(self.directory)))
        return str(path)

    def run(self, *words: str, program: tuple[str, ...] = OURS) -> Done:
        environment = {each: value for each, value in os.environ.items() if not each.startswith("STORAGE_")}
        done = subprocess.run(
            [*program, *words],
            env={**environment, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def facts(self, *words: str, program: tuple[str, ...] = OURS) -> dict[str, str]:
        """Return what ``status`` says."""
        done = self.run("status", *words, program=program)
        assert done.code == 0, done
        return dict(line.split(": ", 1) for line in done.err.splitlines() if ": " in line)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)
    for path in mount_points(str(tmp_path)):
        unmount(path, lazy=True)


CONFIGURED = '[storage]\ndriver = "DRIVER"\ngraphroot = "HERE/graph"\nrunroot = "HERE/run"\n'


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_without_flags_the_configuration_says_which_store(machine: Machine, driver: str) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", driver))
    here = str(machine.directory)
    found = machine.facts()
    assert (found["Root"], found["Run Root"]) == (f"{here}/graph", f"{here}/run")
    assert found["Driver Name"] == driver
    if shutil.which(PEER) is None:
        require_or_skip(PEER, "is not installed; Debian's package has the same name")
    theirs = machine.facts(program=(PEER,))
    for fact in ("Root", "Run Root", "Driver Name"):
        assert theirs[fact] == found[fact]


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_additional_stores_of_the_configuration_are_those_of_the_go_command(
    machine: Machine, driver: str
) -> None:
    if shutil.which(PEER) is None:
        require_or_skip(PEER, "is not installed; Debian's package has the same name")
    here = str(machine.directory)
    shared = ("-g", f"{here}/shared", "-R", f"{here}/shared-run", "-s", driver)
    layer = machine.run("create-layer", "-r", *shared).out.split()[0]
    image = machine.run("create-image", "-n", "shared", *shared, layer).out.split()[0]
    text = CONFIGURED.replace("DRIVER", driver)
    machine.write("storage.conf", f'{text}[storage.options]\nadditionalimagestores = ["HERE/shared"]\n')
    own = machine.run("create-image", "-n", "own").out.split()[0]
    ours = machine.run("images", "-j")
    theirs = machine.run("images", "-j", program=(PEER,))
    assert ours.code == theirs.code == 0, (ours, theirs)
    listed = [[each["id"] for each in json.loads(done.out)] for done in (ours, theirs)]
    assert listed == [[own, image], [own, image]]
    assert "Read Only: true" in machine.run("image", "shared").out
    assert "Read Only: true" not in machine.run("image", "own").out
    assert "Read Only: true" in machine.run("layer", layer).out


def test_a_flag_for_the_store_switches_the_configuration_off(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "no-such-driver"))
    here = str(machine.directory)
    found = machine.facts("-g", f"{here}/mine", "-R", f"{here}/mine-run", "-s", "vfs")
    assert found["Root"] == f"{here}/mine"
    machine.write("storage.conf", "this is no TOML")
    assert machine.run("layers", "-g", f"{here}/mine", "-R", f"{here}/mine-run", "-s", "vfs").code == 0
    refused = machine.run("layers")
    assert refused.code == 1
    assert f"{here}/storage.conf: is no TOML" in refused.err


def test_with_one_root_the_configuration_says_the_other(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "overlay"))
    here = str(machine.directory)
    found = machine.facts("-g", f"{here}/mine", "-s", "vfs")
    assert (found["Root"], found["Run Root"], found["Driver Name"]) == (f"{here}/mine", f"{here}/run", "vfs")


def test_the_environment_changes_driver_and_options_of_the_configuration(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "overlay"))
    machine.environment["STORAGE_DRIVER"] = "vfs"
    machine.environment["STORAGE_OPTS"] = ".no_such_option=1"
    done = machine.run("create-layer")
    assert done.code == 1
    assert "vfs.no_such_option" in done.err


def test_an_unknown_key_is_told_to_who_debugs_and_stops_nobody(machine: Machine) -> None:
    text = CONFIGURED.replace("DRIVER", "vfs") + '[storage.options]\nmountop = "nodev"\n'
    machine.write("storage.conf", text)
    assert machine.run("layers") == Done(0, "", "")
    told = machine.run("--debug", "layers")
    assert "storage.conf: storage.options.mountop is not known" in told.err
    unknown = f"Unknown Key: storage.options.mountop in {machine.directory}/storage.conf\n"
    assert unknown in machine.run("info").out


def test_a_wrong_option_of_the_driver_is_named_with_the_file_that_has_it(machine: Machine) -> None:
    here = machine.directory
    for option, value, file in (
        ("vfs.hostspec_shifting", "perhaps", "hostspec.conf"),
        ("vfs.ignore_chown_errors", "maybe", "storage.conf"),
    ):
        machine.write("storage.conf", CONFIGURED.replace("DRIVER", "vfs"))
        machine.write("hostspec.conf", "")
        key = option.removeprefix("vfs.")
        table = "vfs" if file == "hostspec.conf" else "storage.options.vfs"
        with open(here / file, "a", encoding="utf-8") as text:
            text.write(f'[{table}]\n{key} = "{value}"\n')
        done = machine.run("create-layer")
        assert done.code == 1
        assert f"{here}/{file}: {option}={value}: must be true or false" in done.err


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (PEER, ("layers",)),
        ("podman", ("images", "--quiet")),
        ("buildah", ("images", "--quiet")),
        ("skopeo", ("inspect", "containers-storage:localhost/missing")),
    ],
)
def test_programs_of_the_go_library_say_nothing_of_hostspecs_own_file(
    machine: Machine, program: str, command: tuple[str, ...]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("their stores are root's here")
    if shutil.which(program) is None:
        require_or_skip(program, "is not installed; Debian's package has the same name")
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "vfs"))
    without = machine.run(*command, program=(program,))
    machine.write(
        "hostspec.conf",
        'shift = "native-only"\n[vfs]\nhostspec_shifting = "off"\n[run]\nsubnet = "10.1.0.0/24"\n',
    )
    assert "hostspec.shift=native-only" in machine.facts()["Driver Options"]
    beside = machine.run(*command, program=(program,))
    assert without_times(beside.err) == without_times(without.err)
    assert (beside.code, beside.out) == (without.code, without.out)


def without_times(log: str) -> str:
    return re.sub(r'time="[^"]*"', "", log)


def test_flags_for_image_store_and_transience_go_with_the_configuration(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "vfs"))
    here = machine.directory
    image = machine.run("--image-store", f"{here}/images", "create-image", "-n", "i").out.split()[0]
    assert json.loads((here / "images/vfs-images/images.json").read_text())[0]["id"] == image
    made = machine.run("--image-store", f"{here}/images", "--transient-store", "create-container", "i")
    assert made.code == 0, made
    assert (here / "run/vfs-containers/volatile-containers.json").exists()
    assert machine.run("containers").out == ""


def test_a_default_map_of_the_configuration_is_given_to_containers(machine: Machine) -> None:
    text = CONFIGURED.replace("DRIVER", "vfs") + '[storage.options]\nremap-uids = "0:100000:65536"\n'
    machine.write("storage.conf", text)
    layer = machine.run("create-layer").out.strip()
    assert "UID mapping: (container=0, host=100000, size=65536)" in machine.run("layer", layer).out
    plain = machine.run("create-layer", "--hostuidmap", "--hostgidmap").out.strip()
    assert "mapping" not in machine.run("layer", plain).out


def test_a_truncated_table_stops_only_those_who_need_it(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "vfs"))
    layer = machine.run("create-layer", "-r").out.strip()
    image = machine.run("create-image", "-n", "i", layer).out.split()[0]
    table = machine.directory / "graph/vfs-layers/layers.json"
    table.write_bytes(table.read_bytes()[:40])
    assert machine.run("images").out.split()[0] == image
    assert machine.run("containers") == Done(0, "", "")
    for words in (["layers"], ["layer", layer], ["create-layer"], ["delete-image", "i"], ["mount", layer]):
        done = machine.run(*words)
        assert done.code == 1
        assert f"{table}: is no JSON" in done.err
        assert "Restore it" in done.err
        assert "Traceback" not in done.err
    assert table.stat().st_size == 40
    info = machine.run("info")
    assert info.code == 0, info
    assert "? layers, 1 images, 0 containers" in info.out
    assert f"Damage: {table}: is no JSON" in info.out


def test_a_damaged_record_is_told_left_out_and_kept(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "vfs"))
    first = machine.run("create-layer").out.strip()
    table = machine.directory / "graph/vfs-layers/layers.json"
    rows = json.loads(table.read_text())
    damaged = {"id": "damaged", "names": "no list"}
    table.write_text(json.dumps([*rows, damaged]))
    second = machine.run("create-layer").out.strip()
    listed = machine.run("layers", "-q")
    assert listed.out.split() == [first, second]
    assert listed.code == 1
    assert f"{table}: layer damaged (number 3 in the file) cannot be understood" in listed.err
    assert machine.run("layer", second).code == 0
    assert damaged in json.loads(table.read_text())


def test_drivers_that_are_to_be_preferred_are_tried_first(machine: Machine) -> None:
    text = CONFIGURED.replace('driver = "DRIVER"\n', 'driver_priority = ["no-such", "vfs", "overlay"]\n')
    machine.write("storage.conf", text)
    assert machine.facts()["Driver Name"] == "vfs"


@pytest.mark.parametrize("switch", ["true", "false"])
def test_volatile_mounts_can_be_switched_off(machine: Machine, switch: str) -> None:
    text = (
        CONFIGURED.replace("DRIVER", "overlay")
        + f"transient_store = true\n[storage.options]\ndisable-volatile = {switch}\n"
    )
    machine.write("storage.conf", text)
    layer = machine.run("create-layer", "-r").out.strip()
    image = machine.run("create-image", layer).out.split()[0]
    container = machine.run("create-container", image).out.split()[0]
    mounted = machine.run("mount", container)
    assert mounted.code == 0, mounted
    options = next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mounted.out.strip() in line
    )
    shown = {"volatile", "fsync=volatile"} & set(
        options.split()[-1].split(",")
    )  # as older and newer kernels say
    assert bool(shown) == (switch == "false")


def test_a_driver_by_its_old_name_is_the_same_driver(machine: Machine) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", "overlay2"))
    assert machine.facts()["Driver Name"] == "overlay"
    here = str(machine.directory)
    flags = ("-g", f"{here}/graph", "-R", f"{here}/run", "-s", "overlay2", "--storage-opt")
    assert machine.facts(*flags, "overlay2.mountopt=nodev")["Driver Options"] == "[overlay.mountopt=nodev]"


@pytest.mark.parametrize(
    ("driver", "table", "named"),
    [
        ("vfs", '[storage.options]\nmountopt = "nodev"\n', "vfs.mountopt"),
        ("vfs", '[storage.options]\nsize = "1G"\n', "vfs.size"),
        ("overlay", '[storage.options.overlay]\nmountopt = "nonsense"\n', "nonsense"),
        ("overlay", '[storage.options.overlay]\nuse_composefs = "true"\n', "overlay.use_composefs"),
        ("overlay", '[storage.options]\nadditionallayerstores = ["/x"]\n', "overlay.additionallayerstore"),
        ("vfs", "[storage.options]\nstrip_suid_sgid = true\n", "storage.options.strip_suid_sgid"),
    ],
)
def test_an_option_that_cannot_be_obeyed_is_refused_by_name(
    machine: Machine, driver: str, table: str, named: str
) -> None:
    machine.write("storage.conf", CONFIGURED.replace("DRIVER", driver) + table)
    done = machine.run("create-layer")
    assert done.code == 1
    assert named in done.err
    assert "Traceback" not in done.err
