"""``python -m benchmarks.running``: from an image to a process that has ended, beside podman.

``hostspec run --rm --uidmap NEW IMAGE true`` and ``podman run --rm --uidmap NEW … IMAGE true``, whole
commands in turn, with the same OCI runtime and no network, each on a store of its own. The map is a new one
each time, so that where nobody can shift, each run makes a mapped copy; ``copy`` against ``template`` or
``shift`` on one driver is what a native ``create_from_template`` was made for.

Needs root, podman, runc and the file systems' tools.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from benchmarks.contest import FIRST_HOST_ID
from benchmarks.machine import machine_facts
from benchmarks.measure import CommandFailed, Sample, own_environment, run, timed
from benchmarks.ours import our_command
from benchmarks.peer import plant_answer
from benchmarks.places import Place, place_for, scratch
from benchmarks.report import median
from benchmarks.side import MAP_SIZE
from benchmarks.subjects import debian_root, prepare
from benchmarks.table import table
from hostspec.images import import_image
from hostspec.kernel.mounts import unmount_all
from hostspec.store import open_store

IMAGE = "localhost/subject:latest"
PROGRAM = "true"
OURS, PODMAN = "hostspec", "podman"

ENGINE = """
[containers]
netns = "none"
ipcns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


class Ground(NamedTuple):
    """Where contenders meet."""

    driver: str
    filesystem: str
    options: tuple[str, ...] = ()
    """Storage options."""


class Contender(NamedTuple):
    """One way to run a container."""

    ground: Ground
    who: str
    """``"hostspec"`` or ``"podman"``."""
    way: str
    """What is asked of hostspec; what podman does by itself."""


SHIFTING = Ground("overlay", "ext4")
METACOPY = Ground("overlay", "ext4", ("overlay.mountopt=nodev,metacopy=on",))
BTRFS = Ground("btrfs", "btrfs")
VFS = Ground("vfs", "xfs")

CONTENDERS = (
    Contender(SHIFTING, OURS, "shift"),
    Contender(SHIFTING, PODMAN, "shift"),
    *(Contender(METACOPY, OURS, way) for way in ("template", "copy")),
    Contender(METACOPY, PODMAN, "copy"),
    *(Contender(BTRFS, OURS, way) for way in ("shift", "template", "copy")),
    Contender(BTRFS, PODMAN, "copy"),
    *(Contender(VFS, OURS, way) for way in ("shift", "copy")),
    Contender(VFS, PODMAN, "copy"),
)
"""What is measured. Told not to shift, podman copies by its own native way, where it has one."""

_host_ids = count(FIRST_HOST_ID, MAP_SIZE)


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = _arguments()
    missing = [program for program in (PODMAN, "runc") if shutil.which(program) is None]
    if missing:
        print(f"Not measured: {' and '.join(missing)} missing (Debian packages podman, runc)")
        return 0
    with scratch(arguments.scratch) as base:
        for name, value in machine_facts(base.filesystem, _podman_version()).items():
            print(f"{name}: {value}")
        subject = prepare(debian_root(arguments.rootfs), base.directory)
        print(f"subject: {subject.description}")
        samples = _measure(base, subject.tar, arguments.repeat)
    print()
    _report(samples)
    return 0


def _measure(base: Place, source: str, repeat: int) -> Mapping[Contender, Sequence[Sample]]:
    """Let the contenders of each driver take turns."""
    samples: dict[Contender, list[Sample]] = {each: [] for each in CONTENDERS}
    for ground in dict.fromkeys(each.ground for each in CONTENDERS):
        with place_for(ground.filesystem, base) as place:
            commands = {each: _command(each, place, source) for each in CONTENDERS if each.ground == ground}
            try:
                for turn in range(repeat + 1):
                    for contender, command in commands.items():
                        _, sample = timed(command)
                        if turn:  # the first is for the caches
                            samples[contender].append(sample)
            finally:
                unmount_all(f"{place.directory}/")
    return samples


def _command(contender: Contender, place: Place, source: str) -> Callable[[], object]:
    """Make a store with the image, and return what runs a container there."""
    driver, options = contender.ground.driver, contender.ground.options
    directory = os.path.join(place.directory, f"{contender.who}-{contender.way}")
    graph = os.path.join(directory, "graph")
    run_root = os.path.join(place.run, f"r{next(_host_ids)}")  # podman takes 50 characters, no more
    with open_store(root=graph, run_root=run_root, driver=driver, options=options) as store:
        import_image(store, source, names=[IMAGE])
    flags = ("--root", graph, "--runroot", run_root, "--tmpdir", os.path.join(directory, "tmp"))
    words: tuple[str, ...] = (PODMAN, *flags)
    if contender.who != PODMAN:
        words = (our_command(), "-g", graph, "-R", run_root)
    elif (driver, contender.way) == ("overlay", "copy"):
        plant_answer(os.path.join(run_root, driver))
    words += ("--storage-driver", driver, *(f"--storage-opt={option}" for option in options), "run", "--rm")
    if contender.who != PODMAN:
        words += ("--runtime=runc", f"--idmap-strategy={contender.way}")
    environment = {**own_environment(), **_configuration(directory, driver, graph, run_root)}

    def go() -> object:
        idmap = f"0:{next(_host_ids)}:{MAP_SIZE}"
        return run((*words, f"--uidmap={idmap}", f"--gidmap={idmap}", IMAGE, PROGRAM), environment)

    return go


def _configuration(directory: str, driver: str, graph: str, run_root: str) -> dict[str, str]:
    """Write what podman reads, so that the machine's own configuration plays no part."""
    store, engine = (os.path.join(directory, name) for name in ("storage.conf", "containers.conf"))
    with open(store, "w", encoding="utf-8") as file:
        lines = (f'driver = "{driver}"', f'graphroot = "{graph}"', f'runroot = "{run_root}"')
        file.write("\n".join(("[storage]", *lines, "")))
    with open(engine, "w", encoding="utf-8") as file:
        file.write(ENGINE)
    return {"CONTAINERS_STORAGE_CONF": store, "CONTAINERS_CONF": engine}


def _podman_version() -> str:
    try:
        return run((PODMAN, "--version"), os.environ).output.strip()
    except CommandFailed as error:
        return f"podman of unknown version: {error.message}"


def _report(samples: Mapping[Contender, Sequence[Sample]]) -> None:
    rows = []
    for contender, taken in samples.items():
        rival = next(each for who, each in samples.items() if who[:2] == (contender.ground, PODMAN))
        seconds = median(taken)
        rows.append(
            (
                contender.ground.driver,
                contender.ground.filesystem,
                " ".join(contender.ground.options).rpartition(",")[2],
                f"{contender.who}, {contender.way}",
                f"{seconds * 1e3:.0f}",
                f"{median(taken, cpu=True) * 1e3:.0f}",
                f"{seconds / median(rival):.2f}",
            )
        )
    titles = ("DRIVER", "ON", "OPTION", "RUN BY", "ms", "PROCESSOR ms", "TO PODMAN")
    print(table(titles, rows, text_columns=range(4)), end="")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.running", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="samples of each (default: 5)")
    parser.add_argument("--rootfs", metavar="DIR", help="the image's files (default: a Debian minbase)")
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        default="/var/tmp",  # noqa: S108 - on disk
        help="directory to work in (default: %(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
