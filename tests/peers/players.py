"""Playing a step on a store, as one of the two programs."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO, cast

from hostspec.cli.main import main
from hostspec.errors import HostspecError
from hostspec.store import Container, Image, Layer
from tests.peers.clients import OPTIONS_BESIDE_PEERS, Place
from tests.peers.vocabulary import Step

__all__ = ["Outcome", "play", "play_hostspec", "play_peer"]

PEER = "containers-storage"
_WRITTEN = b"written\n"
_WHEN = (1_700_000_100, 1_700_000_100)  # seconds since the epoch: both programs' files are of one time
_RANDOM_ID = re.compile(r"(?<!sha256:)\b[0-9a-f]{64}\b")
_one_at_a_time = threading.Lock()


class Outcome(NamedTuple):
    """What a step did, without what differs between two stores."""

    done: bool
    """Whether it succeeded."""
    output: str
    """What it printed; IDs that the program made up are hidden, and so is where the store is."""
    error: str = ""
    """What it complained about; for people, and not compared."""


def play(place: Place, step: Step, files: Mapping[str, str], *, ours: bool) -> Outcome:
    """Play a step.

    Args:
        place: Whose store.
        step: The command line.
        files: What ``@NAME`` stands for.
        ours: Whether hostspec plays, or else its peer.
    """
    run = play_hostspec if ours else play_peer
    if step[0] in {"write", "remove"}:
        return _change(place, step, ours=ours)
    if step[0] == "data":
        return _set_item(place, step, files, ours=ours)
    return run(place, tuple(files.get(word, word) for word in step))


def play_hostspec(place: Place, step: Step) -> Outcome:
    """Run a command line as hostspec, in this process, as the command's own entry point does."""
    options = (f"--storage-opt={option}" for option in OPTIONS_BESIDE_PEERS)
    flags = ("-g", place.graph, "-R", place.run, "-s", place.driver, *options)
    with _captured() as (output, errors):
        code = main([*flags, *step])
        return _outcome(place, code, _content(output), _content(errors))


def play_peer(place: Place, step: Step) -> Outcome:
    """Run a command line as containers-storage."""
    flags = ("-g", place.graph, "-R", place.run, "-s", place.driver)
    command = [PEER, step[0], *flags, *step[1:]]
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment
    )
    return _outcome(place, done.returncode, done.stdout.decode(), done.stderr.decode())


def _outcome(place: Place, code: int, output: str, errors: str) -> Outcome:
    hidden = output.replace(place.graph, "GRAPH").replace(place.run, "RUN")
    return Outcome(code == 0, _RANDOM_ID.sub("RANDOM", hidden), errors)


def _change(place: Place, step: Step, *, ours: bool) -> Outcome:
    """Mount a container, change a file in it, and unmount it."""
    run = play_hostspec if ours else play_peer
    what, container, name = step
    mounted = run(place, ("mount", container))
    if not mounted.done:
        return mounted
    root = mounted.output.strip().replace("GRAPH", place.graph).replace("RUN", place.run)
    answer = ""
    path = os.path.join(root, name)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        if what == "write":
            with open(path, "wb") as file:
                file.write(_WRITTEN)
            os.utime(path, _WHEN)
        os.utime(os.path.dirname(path), _WHEN)
    except OSError as error:
        # Under a shifted mount, the host's root is nobody: it may write nothing.
        answer = error.strerror or ""
    unmounted = run(place, ("unmount", container))
    return Outcome(unmounted.done, answer + unmounted.output, unmounted.error)


def _set_item(place: Place, step: Step, files: Mapping[str, str], *, ours: bool) -> Outcome:
    """Set an item of big data; hostspec through its API."""
    _, kind, identifier, key, item = step
    if not ours:
        return play_peer(place, (f"set-{kind}-data", "-f", files[item], identifier, key))
    with place.open() as store:
        record: Callable[[str], Layer | Image | Container] = getattr(store, kind)
        try:
            store.set_big_data(record(identifier), key, Path(files[item]).read_bytes())
        except HostspecError as error:
            return Outcome(done=False, output="", error=str(error))
    return Outcome(done=True, output="")


@contextmanager
def _captured() -> Iterator[tuple[TextIO, TextIO]]:
    """Collect what the command line prints in this process: in files, which have descriptors."""
    thresholds = gc.get_threshold()
    with _one_at_a_time, _text_file() as output, _text_file() as errors:
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = output, errors
        try:
            yield output, errors
        finally:
            sys.stdout, sys.stderr = before
            gc.set_threshold(*thresholds)


def _text_file() -> TextIO:
    return cast(TextIO, tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape"))


def _content(file: TextIO) -> str:
    file.seek(0)
    return file.read()
