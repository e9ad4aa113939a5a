"""Taking samples: how long a piece of work took, and what it used."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["CommandFailed", "Finished", "Sample", "own_environment", "run", "timed"]

Result = TypeVar("Result")


class Sample(NamedTuple):
    """One measurement."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float
    """Processor time, user and system, of this process and of those that it ran; steadier than the clock."""


class Finished(NamedTuple):
    """A command that succeeded."""

    output: str
    """What it wrote to standard output, or ``""`` where that was thrown away."""
    messages: str
    """What it wrote to standard error."""
    peak_bytes: int
    """The most memory that it had at one time, in bytes."""


class CommandFailed(Exception):
    """A command exited with something other than 0.

    Attributes:
        command: Its words.
        message: What it wrote to standard error.
    """

    def __init__(self, command: Sequence[str], message: str) -> None:
        self.command = tuple(command)
        self.message = message
        super().__init__(f"{' '.join(command)}: {message}")


def timed(work: Callable[[], Result]) -> tuple[Result, Sample]:
    """Do a piece of work, and return its result and what it took."""
    cpu = _cpu_seconds()
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    return result, Sample(seconds, _cpu_seconds() - cpu)


def run(command: Sequence[str], environment: Mapping[str, str], *, discard: bool = False) -> Finished:
    """Run a command to its end, without a shell.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        discard: Send standard output to /dev/null, for commands that write a lot.

    Raises:
        CommandFailed: It did not exit with 0.
    """
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if discard else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, message = _read(process)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandFailed(command, message.strip() or f"exit status {process.returncode}")
    return Finished(output, message, usage.ru_maxrss * 1024)


def own_environment() -> dict[str, str]:
    """Return ours, but let compiled modules be kept, as installed ones are; compiling costs most of all."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _read(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read both pipes to their ends; what comes on them here is less than a pipe holds."""
    output = process.stdout.read() if process.stdout else ""
    message = process.stderr.read() if process.stderr else ""
    return output, message


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
