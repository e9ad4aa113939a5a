"""The programs that people use on a containers/storage store, each on the store of one test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from hostspec.store import Store, open_store
from hostspec.testing.requirements import require_or_skip
from tests.peers.orphans import waiting_for_orphans

__all__ = ["OPTIONS_BESIDE_PEERS", "Place", "require_program"]

_LONGEST_RUN = 120.0  # seconds

_ENGINE = """
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
# crun does not run on every kernel that podman runs on, and a test's limits may be lower than podman's own.
# No IPC namespace with a /dev/shm of podman's: it mounts that where the test sees it, but starts conmon, for
# a container with an ID map, in a mount namespace of its own (CreateContainer in oci_conmon_linux.go). The
# clean-up that conmon starts unmounts it there alone, and "podman rm" later finds it busy here.

_STORE = """
[storage]
driver = "{driver}"
graphroot = "{graph}"
runroot = "{run}"
"""


OPTIONS_BESIDE_PEERS = ("hostspec.shift=native-only",)
"""With which hostspec makes containers that its peers can start: they shift on overlay only."""


class Place(NamedTuple):
    """A directory with one store, and every program that shares it."""

    directory: str
    """Absolute path; holds the store and what the programs need beside it."""
    run: str
    """Absolute path of the run root, of which podman takes no more than 50 characters."""
    driver: str
    """The store's driver."""

    @property
    def graph(self) -> str:
        """Absolute path of the graph root."""
        return os.path.join(self.directory, "graph")

    @property
    def reference(self) -> str:
        """How containers/image's programs write which store they mean, before an image's name."""
        return f"containers-storage:[{self.driver}@{self.graph}+{self.run}]"

    def open(self) -> Store:
        """Open the store as hostspec does where podman is to start its containers."""
        return open_store(
            root=self.graph,
            run_root=self.run,
            driver=self.driver,
            options=OPTIONS_BESIDE_PEERS,
        )

    def podman(self, *words: str) -> str:
        """Run podman, and wait for what it leaves running."""
        private = os.path.join(self.directory, "podman")
        flags = ("--root", self.graph, "--runroot", self.run, "--storage-driver", self.driver)
        with waiting_for_orphans():
            return self._output("podman", *flags, "--tmpdir", private, *words)

    def podman_json(self, *words: str) -> list[dict[str, object]]:
        """Run podman, and read what it answers."""
        answer = json.loads(self.podman(*words))
        assert isinstance(answer, list)
        return answer

    def buildah(self, *words: str) -> str:
        """Run buildah."""
        flags = ("--root", self.graph, "--runroot", self.run, "--storage-driver", self.driver)
        return self._output("buildah", *flags, *words)

    def skopeo(self, *words: str) -> str:
        """Run skopeo."""
        return self._output("skopeo", "--insecure-policy", *words)

    def containers_storage(self, *words: str) -> str:
        """Run the Go library's own program."""
        flags = ("--graph", self.graph, "--run", self.run, "--storage-driver", self.driver)
        return self._output("containers-storage", words[0], *flags, *words[1:])

    def _output(self, *command: str) -> str:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_LONGEST_RUN,
            env=os.environ | self._environment(),
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.removesuffix("\n")

    def _environment(self) -> dict[str, str]:
        """The machine's own configuration may name another driver, another runtime or a remote service."""
        store, engine = (os.path.join(self.directory, name) for name in ("storage.conf", "containers.conf"))
        Path(store).write_text(
            _STORE.format(driver=self.driver, graph=self.graph, run=self.run), encoding="utf-8"
        )
        Path(engine).write_text(_ENGINE, encoding="utf-8")
        return {"CONTAINERS_STORAGE_CONF": store, "CONTAINERS_CONF": engine}


def require_program(name: str, *, package: str = "") -> None:
    """End the running test where a program is missing.

    Args:
        name: The program.
        package: Debian's package, where that is called otherwise.
    """
    if shutil.which(name) is None:
        package_name = f"is {package}" if package else "has the same name"
        require_or_skip(name, f"is not installed; Debian's package {package_name}")
