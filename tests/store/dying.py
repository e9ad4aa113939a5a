"""A process that works on a store and is killed in the middle; its arguments are at the end of the file."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

from hostspec.idmap import IdMap
from hostspec.observers import Operation
from hostspec.store import Store, open_store
from tests.store.tars import MAP, tar_of


class Death:
    """Kills this process when a certain operation of the driver starts or has finished."""

    def __init__(self, hook: str, event: str) -> None:
        self._hook = hook
        self._event = event

    def started(self, operation: Operation) -> None:
        self._perhaps(operation, "started")

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        del error
        self._perhaps(operation, "finished")

    def _perhaps(self, operation: Operation, event: str) -> None:
        if (operation.name, event) == (self._hook, self._event):
            os.kill(os.getpid(), signal.SIGKILL)


def work(store: Store, what: str) -> None:
    """Do one thing to a store with an image called ``image`` and a container called ``container``."""
    things: dict[str, Callable[[], object]] = {
        "import": lambda: store.import_layer(io.BytesIO(tar_of({"new": b"content"}))),
        "create": lambda: store.create_layer(store.image("image").layer),
        "container": lambda: store.create_container("image", names=["new"]),
        "mapped": lambda: store.create_container(
            "image", names=["new"], idmap=IdMap.parse([MAP]), strategy="template"
        ),
        "delete-container": lambda: store.delete_container("container"),
        "delete-image": lambda: store.delete_image("unused"),
        "mount": lambda: store.mount("container"),
        "unmount": lambda: store.unmount("container"),
        "apply": lambda: store.apply_diff(
            store.container("container").layer, io.BytesIO(tar_of({"new": b"content"}))
        ),
        "wipe": store.wipe,
    }
    things[what]()


if __name__ == "__main__":
    root, run_root, driver, hook, event, what = sys.argv[1:]
    death = Death(hook, event)
    work(open_store(root=root, run_root=run_root, driver=driver, observers=[death]), what)
