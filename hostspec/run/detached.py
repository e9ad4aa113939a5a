"""Running on when whoever asked for it has gone: a small process of its own looks after the container."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from hostspec.run.options import RunOptions
from hostspec.run.preparing import prepare
from hostspec.run.recovery import clean_up
from hostspec.run.runtimes import RuntimeFailed
from hostspec.store import Store

__all__ = ["run_detached"]


def run_detached(store: Store, image: str, options: RunOptions) -> str:
    """Run a container, and return when its process runs.

    Args:
        store: The store.
        image: Reference to the image.
        options: What is asked for.

    Returns:
        The container's ID.

    Raises:
        RuntimeFailed: The process could not be started; nothing is left.
        HostspecError: As :func:`hostspec.run.preparing.prepare` raises it.
    """
    run = prepare(store, image, options, detached=True)
    answer, tell = os.pipe()
    try:
        # -P: a directory called hostspec where the user happens to be is not this one.
        words = (sys.executable, "-P", "-m", "hostspec.run.monitor", run.place.directory)
        monitor = subprocess.Popen(
            [*words, str(run.lock.fd), str(tell)],
            stdin=subprocess.DEVNULL,
            pass_fds=(run.lock.fd, tell),
            cwd="/",
        )
    except BaseException:
        os.close(answer)
        run.finish(None)
        raise
    finally:
        os.close(tell)
    # From here on the run is the monitor's alone, also if we are interrupted.
    try:
        with open(answer, "rb") as file:
            monitor.wait()  # it goes on in a child of its own
            said = file.read()
    finally:
        run.lock.release()
    if not said:
        clean_up(store)
        raise RuntimeFailed(run.record.runtime, "the process that looks after the container has died")
    told = json.loads(said)
    if told.get("reason"):
        raise RuntimeFailed(run.record.runtime, told["reason"], told["exit_code"])
    return run.place.container
