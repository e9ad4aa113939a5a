"""A running container as Python sees it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from hostspec.run.options import RunOptions
from hostspec.run.preparing import prepare
from hostspec.run.runs import Run
from hostspec.run.starting import Stream
from hostspec.store import Store

__all__ = ["Process", "running"]

_SECONDS_BETWEEN_LOOKS = 0.005


class Process:
    """The first process of a container, from when its runtime was started until it has ended.

    Attributes:
        container: The container's ID.
        stdin: Pipe to its standard input, where one was asked for.
        stdout: Pipe from its standard output, where one was asked for.
        stderr: Pipe from its standard error, where one was asked for.
    """

    def __init__(self, run: Run, program: subprocess.Popen[bytes]) -> None:
        """Take a run whose runtime has been started."""
        self._run = run
        self._program = program
        self.container = run.place.container
        self.stdin: IO[bytes] | None = program.stdin
        self.stdout: IO[bytes] | None = program.stdout
        self.stderr: IO[bytes] | None = program.stderr

    @property
    def address(self) -> str:
        """Its address on hostspec's bridge, or ``""``."""
        return self._run.record.address

    def pid(self) -> int:
        """Return its ID as the host sees it, once its command runs.

        Raises:
            RuntimeFailed: It could not be started.
        """
        fd = os.pidfd_open(self._program.pid)
        try:
            # The runtime tells it by a file, which appears; when the runtime has ended, it never will.
            while (found := self._run.first_process) is None:
                if select.select([fd], [], [], _SECONDS_BETWEEN_LOOKS)[0] and self._run.first_process is None:
                    raise self._run.runtime.failure(self._program.wait())
        finally:
            os.close(fd)
        return found

    def wait(self, seconds: float | None = None) -> int:
        """Wait until it has ended, and return its exit code; 128 and the signal's number for a signal.

        Args:
            seconds: How long to wait at most; ``None`` for as long as it takes.

        Raises:
            RuntimeFailed: It could not be started.
            TimeoutError: It still runs.
        """
        try:
            status = self._program.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"container {self.container} still runs after {seconds} seconds") from error
        return self._run.exit_code(status)

    def send_signal(self, number: int) -> None:
        """Send it a signal; one that has ended gets none."""
        self._program.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def close(self) -> int | None:
        """Kill it if it still runs, and return its exit code, or ``None`` where it never ran."""
        if self._program.poll() is None:
            if self._run.first_process is None:
                self._program.kill()  # what it has made is taken down with the run
            else:
                self._run.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        status = self._program.wait()
        return None if self._run.first_process is None else self._run.exit_code(status)


@contextmanager
def running(
    store: Store,
    image: str,
    options: RunOptions = RunOptions(),  # noqa: B008 - immutable
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Iterator[Process]:
    """Run a container for the time of a ``with`` block.

    At the end of the block the container is killed if it still runs, and everything that belonged to it is
    taken down; with :attr:`RunOptions.remove <hostspec.run.RunOptions.remove>` the container is removed too.
    If this process is killed meanwhile, the next command of hostspec does that, or :func:`clean_up`.

    Args:
        store: The store.
        image: Reference to the image.
        options: How it is to be run.
        stdin: Its standard input, as :class:`subprocess.Popen` takes it; by default at its end.
        stdout: Its standard output; by default this process's.
        stderr: Its standard error; by default this process's.

    Raises:
        Unknown: There is no such image.
        Duplicate: The name is taken.
        InvalidRequest: There is no command, or no such user.
        RuntimeFailed: There is no OCI runtime. One that cannot start the command is told by
            :meth:`Process.wait`.
    """
    run = prepare(store, image, options)
    code = None
    try:
        process = Process(run, run.start((stdin, stdout, stderr)))
        try:
            yield process
        finally:
            code = process.close()
    finally:
        run.finish(code)
