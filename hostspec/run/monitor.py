"""The process that looks after a detached container.

Run as ``python -m hostspec.run.monitor DIRECTORY LOCK ANSWER``: the run's directory, and two descriptors.

It starts the container, tells whoever asked for it, waits for its end, and cleans up. It holds the run's
lock as long as it lives; if it is killed, the lock is free, and the next command of hostspec cleans up.
"""

from __future__ import annotations

import json
import os
import sys

from hostspec.errors import HostspecError
from hostspec.kernel.syscalls import check, libc
from hostspec.run.places import RunLock, RunPlace
from hostspec.run.records import read_record
from hostspec.run.runs import Run, output_file, take_over
from hostspec.run.runtimes import CANNOT_RUN, RuntimeFailed, exit_code_of

__all__ = ["main"]

_PR_SET_CHILD_SUBREAPER = 36


def main(words: list[str]) -> None:
    """Look after one container."""
    directory, lock_fd, answer = words[0], int(words[1]), int(words[2])
    if os.fork():
        os._exit(0)  # so that whoever asked need not wait for us
    os.setsid()
    for fd in (lock_fd, answer):
        os.set_inheritable(fd, False)  # noqa: FBT003 - takes no keyword
    run = _run_of(directory, lock_fd)
    try:
        process = _start(run)
    except (HostspecError, OSError) as error:
        run.finish(None)
        code = error.exit_code if isinstance(error, RuntimeFailed) else CANNOT_RUN
        reason = error.reason if isinstance(error, RuntimeFailed) else str(error)
        os.write(answer, json.dumps({"reason": reason, "exit_code": code}).encode())
        return
    os.write(answer, b"{}")
    os.close(answer)
    _forget_streams()
    run.finish(_wait_for(process))


def _run_of(directory: str, lock_fd: int) -> Run:
    record = read_record(os.path.join(directory, "state.json"))
    assert record is not None  # noqa: S101 - whoever started us wrote it
    store = record.store.open()
    run = take_over(store, RunPlace.of(store, record.container), RunLock(f"{directory}.lock", lock_fd))
    assert run is not None  # noqa: S101 - it has just been read
    return run


def _start(run: Run) -> int:
    """Start the container; return its first process, which is now a child of ours."""
    # A process whose parent has ended, as the runtime will, becomes a child of ours.
    check(libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    container = run.store.container(run.place.container)
    output = os.open(
        output_file(run.store, container), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = run.start((null, output, output)).wait()
    finally:
        os.close(output)
        os.close(null)
    run.exit_code(status)
    process = run.first_process
    assert process is not None  # noqa: S101 - or exit_code would have raised
    return process


def _wait_for(process: int) -> int:
    while True:
        ended, status = os.wait()  # others are orphans of the runtime's
        if ended == process:
            return exit_code_of(os.waitstatus_to_exitcode(status))


def _forget_streams() -> None:
    """Keep nobody waiting for the end of a stream that we inherited."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


if __name__ == "__main__":
    main(sys.argv[1:])
