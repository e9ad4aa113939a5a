"""A process that makes a container on a mapped copy, and waits in the middle of the copy for a line.

``python -m tests.store.pausing ROOT RUN DRIVER NAME`` writes ``asking`` before it asks for the container,
``copying`` once it has begun to copy, and ``done`` at the end.
"""

from __future__ import annotations

import sys

from hostspec.idmap import IdMap
from hostspec.observers import Operation
from hostspec.store import open_store
from hostspec.values import Progress
from tests.store.tars import MAP


class Pause:
    """Waits once, when the first file of a mapped copy has been copied."""

    def __init__(self) -> None:
        self._to_come = False

    def started(self, operation: Operation) -> None:
        if operation.name == "create_from_template":
            self._to_come = True

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        del error
        if operation.name == "create_from_template":
            self._to_come = False

    def progress(self, _: Progress) -> None:
        if self._to_come:
            self._to_come = False
            say("copying")
            sys.stdin.readline()


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Make the container that the command line names."""
    root, run_root, driver, name = sys.argv[1:]
    pause = Pause()
    idmap = IdMap.parse([MAP])
    with open_store(root=root, run_root=run_root, driver=driver, observers=[pause]) as store:
        say("asking")
        store.create_container("image", names=[name], idmap=idmap, strategy="copy", progress=pause.progress)
        say("done")


if __name__ == "__main__":
    main()
