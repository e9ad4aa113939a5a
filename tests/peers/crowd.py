"""One of several processes that work on one store, and complain when it forgets or mistakes something.

``python -m tests.peers.crowd PROGRAM NUMBER SECONDS ROOT RUN DRIVER`` works as ``hostspec`` or as
``containers-storage`` and ends with 0, or with 1 after it has written what was wrong. What a process has
made belongs to it: nobody else removes it, so that it must be there whenever it is asked for. One
container belongs to all: everybody mounts and unmounts it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod

from hostspec.idmap import IdMap
from hostspec.store import Store, open_store

__all__ = ["IMAGE", "MAPS", "SHARED"]

IMAGE = "image"
"""Name of the image that all containers are made from."""
SHARED = "shared"
"""Name of the container that everybody mounts."""
MAPS = ("0:100000:65536", "0:200000:65536")
"""Maps that containers are made under."""

_PEER = "containers-storage"


class Worker(ABC):
    """Works on the store through one of the two programs."""

    @abstractmethod
    def create_container(self, identifier: str, uidmap: str | None) -> None:
        """Make a container of the image."""

    @abstractmethod
    def create_layer(self, identifier: str) -> None:
        """Make a layer without a parent."""

    @abstractmethod
    def knows(self, kind: str, identifier: str) -> bool:
        """Tell whether there is such a ``"container"`` or ``"layer"``."""

    @abstractmethod
    def rename(self, identifier: str, name: str) -> None:
        """Give an object another name."""

    @abstractmethod
    def mount(self, identifier: str) -> str:
        """Mount, and return the path."""

    @abstractmethod
    def unmount(self, identifier: str) -> None:
        """Give the mount back."""

    @abstractmethod
    def delete(self, kind: str, identifier: str) -> None:
        """Delete a ``"container"`` or ``"layer"``."""


class Hostspec(Worker):
    """Uses one store object for as long as it lives, as a host tool does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create_container(self, identifier: str, uidmap: str | None) -> None:
        idmap = IdMap.parse([uidmap]) if uidmap else None
        self._store.create_container(IMAGE, container_id=identifier, idmap=idmap)

    def create_layer(self, identifier: str) -> None:
        self._store.create_layer(layer_id=identifier)

    def knows(self, kind: str, identifier: str) -> bool:
        return self._store.exists(identifier, [kind])

    def rename(self, identifier: str, name: str) -> None:
        self._store.set_names(identifier, [name])

    def mount(self, identifier: str) -> str:
        return self._store.mount(identifier)

    def unmount(self, identifier: str) -> None:
        self._store.unmount(identifier)

    def delete(self, kind: str, identifier: str) -> None:
        if kind == "container":
            self._store.delete_container(identifier)
        else:
            self._store.delete_layer(identifier)


class Peer(Worker):
    """Runs the Go library's program, once for each step."""

    def __init__(self, root: str, run_root: str, driver: str) -> None:
        self._flags = ("--graph", root, "--run", run_root, "--storage-driver", driver)

    def _run(self, *words: str) -> str:
        command = (_PEER, words[0], *self._flags, *words[1:])
        environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise RuntimeError(f"{words}: {done.stderr}")
        return done.stdout.strip()

    def create_container(self, identifier: str, uidmap: str | None) -> None:
        maps = ("--uidmap", uidmap, "--gidmap", uidmap) if uidmap else ()
        self._run("create-container", "-i", identifier, *maps, IMAGE)

    def create_layer(self, identifier: str) -> None:
        self._run("create-layer", "-i", identifier)

    def knows(self, kind: str, identifier: str) -> bool:
        return self._run("exists", f"--{kind}", identifier) == f"{identifier}: true"

    def rename(self, identifier: str, name: str) -> None:
        self._run("set-names", "-n", name, identifier)

    def mount(self, identifier: str) -> str:
        return self._run("mount", identifier)

    def unmount(self, identifier: str) -> None:
        self._run("unmount", identifier)

    def delete(self, kind: str, identifier: str) -> None:
        self._run(f"delete-{kind}", identifier)


def work(worker: Worker, name: str, seconds: float) -> int:
    """Work for a while.

    Args:
        worker: The program.
        name: Begins every ID that is made.
        seconds: How long.

    Returns:
        How many rounds were done.
    """
    chance = random.Random(name)  # noqa: S311 - a test that can be repeated
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        container, layer = f"{name}-container-{rounds}", f"{name}-layer-{rounds}"
        worker.create_container(container, chance.choice((None, *MAPS)))
        worker.create_layer(layer)
        _use(worker, container)
        assert worker.knows("container", container)
        worker.rename(layer, f"name of {layer}")
        _use(worker, SHARED)
        assert worker.knows("layer", f"name of {layer}")
        _use(worker, layer, writing=True)
        worker.delete("container", container)
        worker.delete("layer", layer)
        rounds += 1
    # The last thing stays, to be found by whoever looks afterwards.
    worker.create_container(f"{name}-stays", None)
    return rounds


def _use(worker: Worker, identifier: str, *, writing: bool = False) -> None:
    """Mount, look, and unmount."""
    path = worker.mount(identifier)
    if writing:
        with open(os.path.join(path, "written"), "w", encoding="ascii") as file:
            file.write(identifier)
    else:
        with open(os.path.join(path, "etc", "name"), encoding="ascii") as file:
            assert file.read() == "base\n"
    worker.unmount(identifier)


def main() -> int:
    """Work as the command line says."""
    program, number, seconds, root, run_root, driver = sys.argv[1:]
    name = f"{program}-{number}"
    if program == "hostspec":
        with open_store(root=root, run_root=run_root, driver=driver) as store:
            rounds = work(Hostspec(store), name, float(seconds))
    else:
        rounds = work(Peer(root, run_root, driver), name, float(seconds))
    print(rounds)  # noqa: T201 - told to the test
    return 0


if __name__ == "__main__":
    sys.exit(main())
