"""A store with an image that can be run, and what must be left of the containers that ran: nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from hostspec.kernel.mountinfo import mount_points, mount_table
from hostspec.run.leases import Bridge, leases_of
from hostspec.run.places import known_runs
from hostspec.store import Store
from tests.cli.running import Done

IMAGE = "localhost/box:latest"
MAP = "0:514000:70000"
UNMAPPED = "0 0 4294967295"
MAPPED = " ".join(MAP.split(":"))

ENVIRONMENT = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull, "PYTHONWARNINGS": "error"}
COMMAND = (sys.executable, "-c", "import sys; from hostspec.cli.main import main; sys.exit(main())")


class Stage:
    """The store of one test, and the command that works on it."""

    def __init__(self, store: Store, subnet: str) -> None:
        self.store = store
        self.subnet = subnet
        flags = ("-g", store.root, "-R", store.run_root, "-s", store.driver_name)
        self.command = (*COMMAND, *flags)
        self._ran: set[str] = set()

    def __call__(self, *words: str, content: bytes | None = None) -> Done:
        """Run a command of hostspec."""
        done = subprocess.run(
            [*self.command, *words],
            input=content,
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            check=False,
            env=ENVIRONMENT,
            cwd=Path(__file__).parents[2],
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def good(self, *words: str, content: bytes | None = None) -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self(*words, content=content)
        assert done.code == 0, f"{words}: {done}"
        return done.out

    def started(self, *words: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a command of hostspec beside the test; it is killed in the end, if it still runs."""
        return self.beside(*self.command, *words)

    @contextmanager
    def beside(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program beside the test; it is killed in the end, if it still runs."""
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd=Path(__file__).parents[2],
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def remember(self) -> None:
        """Remember which containers there are, for whose control groups nobody could look later."""
        self._ran |= {each.container for each in known_runs(self.store)} | set(self.containers())

    def leftovers(self) -> list[str]:
        """Return what is left of containers that have ended."""
        self.remember()
        bridge = Bridge.of(self.subnet)
        found = [f"run {each.directory}" for each in known_runs(self.store)]
        found += [f"mount {each}" for each in self._mounts()]
        found += [f"process {each}" for each in _processes_that_name(self.store.run_root)]
        found += [f"process in a container {each}" for each in _processes_in(self.store.run_root)]
        found += [f"link {name}" for _, name in socket.if_nameindex() if name == bridge.name]
        with leases_of(bridge) as leases:
            found += [f"lease {each}" for each in leases.all()]
        return found + [f"control group {each}" for each in _cgroups(self._ran)]

    def containers(self) -> list[str]:
        """Return the IDs of the containers that the store has."""
        return [each.id for each in self.store.containers()]

    def _mounts(self) -> list[str]:
        below = (*mount_points(self.store.root), *mount_points(self.store.run_root))
        # The Go library and we mount a driver's home on itself, so that nothing below it is shared.
        return [each for each in below if each != os.path.join(self.store.root, self.store.driver_name)]


def parent_of(process: int) -> int:
    """Return the process that has started a process, or has taken it over."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("PPid:"))


def _processes_that_name(path: str) -> list[str]:
    """Return the command lines that have a path in them, but for monitors, which end when all is done."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
            if any(path in word for word in words) and "hostspec.run.monitor" not in words:
                found.append(" ".join(words))
    return found


def _processes_in(run_root: str) -> list[int]:
    """Return the processes that see a file which is made for each container of a store (``/etc/hosts``)."""
    mark, found = f"/{os.path.basename(run_root)}/hostspec-run/", []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/mountinfo", encoding="utf-8") as file:
            if mark in file.read():
                found.append(int(name))
    return found


def _cgroups(containers: set[str]) -> list[str]:
    hierarchies = [each.mount_point for each in mount_table() if each.filesystem in {"cgroup", "cgroup2"}]
    places = [os.path.join(hierarchy, f"hostspec-{each}") for hierarchy in hierarchies for each in containers]
    return [each for each in places if os.path.exists(each)]
