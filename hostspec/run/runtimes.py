"""OCI runtimes: which there are, how they are called, and what their failures mean.

What hostspec uses is what runc and crun have in common: ``run``, ``exec``, ``kill``, ``delete``, ``--root``,
``--log``, ``--bundle``, ``--pid-file``. Each container has a state directory (``--root``) of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from hostspec.errors import HostspecError

__all__ = [
    "CANNOT_RUN",
    "NOT_EXECUTABLE",
    "NOT_FOUND",
    "NotStarted",
    "Runtime",
    "RuntimeFailed",
    "exit_code_of",
    "find_runtime",
]

KNOWN = ("runc", "crun")
"""Names that are looked for, in this order, where none is given."""

CANNOT_RUN = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""Exit codes of podman and Docker for a container that never ran: for its command, and for other reasons."""

# The words of runc and crun, and those of the kernel that they pass on.
_ABOUT_COMMAND = r"exec: |exec /|exec `|executable"
_NOT_FOUND = r"not found|no such file or directory"
_NOT_EXECUTABLE = r"permission denied|exec format error|operation not permitted|is a directory"

_FOR_ADMINISTRATORS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Directories of programs which are not on everybody's path."""


class RuntimeFailed(HostspecError):
    """The OCI runtime is missing, or could not start a process.

    Attributes:
        runtime: Its name or path.
        reason: What it said.
        exit_code: What podman's exit code would be: 127 for a command that is not there, 126 for one that
            cannot be executed, otherwise 125.
    """

    def __init__(self, runtime: str, reason: str, exit_code: int = CANNOT_RUN) -> None:
        self.runtime = runtime
        self.reason = reason
        self.exit_code = exit_code
        super().__init__(f"OCI runtime {runtime}: {reason}")


class NotStarted(RuntimeFailed):
    """The OCI runtime could not start a process, and has said why on its standard error, too."""


class Runtime(NamedTuple):
    """A runtime, with the directory for the state of one container."""

    path: str
    """Absolute path of the program."""
    directory: str
    """Where it keeps the container's state, and writes its log."""
    log: str
    """The file for what it says."""
    cgroups: bool = True
    """Whether it shall make control groups."""

    def run(self, container: str, bundle: str, pid_file: str, *, detach: bool = False) -> list[str]:
        """Return the command that makes a container and runs it.

        Args:
            container: Its ID.
            bundle: Directory with ``config.json``.
            pid_file: Gets the first process's ID once the container's command runs.
            detach: Return when it runs, and not when it has ended.
        """
        words = [*self._program(), "run", "--bundle", bundle, "--pid-file", pid_file]
        return [*words, *(["--detach"] if detach else []), container]

    def exec(self, container: str, process: str, pid_file: str) -> list[str]:
        """Return the command that runs a further process in a container.

        Args:
            container: Its ID.
            process: File with the process, as ``config.json`` describes the first one.
            pid_file: Gets its ID once it runs.
        """
        return [*self._program(), "exec", "--process", process, "--pid-file", pid_file, container]

    def kill(self, container: str, signal: int) -> None:
        """Send a signal to the first process.

        Raises:
            RuntimeFailed: There is no such process.
        """
        self._do("kill", container, str(signal))

    def delete(self, container: str) -> None:
        """Kill what runs in a container, and forget it; one that it does not know is no error.

        Nor is it one if the program is gone, as long as control groups tell what is to be killed.

        Raises:
            OSError: The program cannot be executed, and nobody else knows what is to be killed.
        """
        try:
            self._do("delete", "--force", container)
        except RuntimeFailed:
            pass
        except OSError:
            if not self.cgroups:
                raise

    def failure(self, status: int) -> NotStarted:
        """Return why a command, which ended with this status, did not start a process."""
        reason = _last_message(self.log) or f"ended with exit status {status}"
        code = CANNOT_RUN
        if re.search(_ABOUT_COMMAND, reason):
            found = reason.lower()
            code = NOT_FOUND if re.search(_NOT_FOUND, found) else code
            code = NOT_EXECUTABLE if re.search(_NOT_EXECUTABLE, found) else code
        return NotStarted(self.path, reason, code)

    def _program(self) -> list[str]:
        return [self.path, *self._without_cgroups(), "--root", self.directory, "--log", self.log, *_JSON_LOG]

    def _without_cgroups(self) -> list[str]:
        if self.cgroups:
            return []
        is_crun = os.path.basename(self.path).startswith("crun")
        return ["--cgroup-manager", "disabled"] if is_crun else ["--rootless", "true"]

    def _do(self, *words: str) -> None:
        done = subprocess.run(
            [*self._program(), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip() or _last_message(self.log)
            raise RuntimeFailed(self.path, said or f"{words[0]} ended with exit status {done.returncode}")


_KILLED_BY = 128
_JSON_LOG = ("--log-format", "json")


def exit_code_of(status: int) -> int:
    """Return an exit code as shells give it: 128 and the signal's number for a status that is negative."""
    return status if status >= 0 else _KILLED_BY - status


def find_runtime(wanted: str = "") -> str:
    """Return the absolute path of a runtime.

    Args:
        wanted: Its name or path; ``""`` for the first of those that are known.

    Raises:
        RuntimeFailed: There is none; says what to install.
    """
    for name in (wanted,) if wanted else KNOWN:
        found = _which(name)
        if found is not None:
            return os.path.abspath(found)
    known = " or ".join(KNOWN)
    missing = "is not installed" if wanted else "none is installed"
    raise RuntimeFailed(
        wanted or known, f"{missing}; install the package {known}, or name one with --runtime"
    )


def _which(name: str) -> str | None:
    """Do what :func:`shutil.which` does, which loads every compressor."""
    search = (*os.environ.get("PATH", os.defpath).split(os.pathsep), *_FOR_ADMINISTRATORS)
    paths = [name] if os.path.dirname(name) else [os.path.join(each, name) for each in search]
    return next((each for each in paths if os.path.isfile(each) and os.access(each, os.X_OK)), None)


def _last_message(log: str) -> str:
    """Return the last error in a log, each line of which is a JSON object."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    said = _said(lines)
    return said[-1] if said else ""


def _said(lines: Sequence[str]) -> list[str]:
    found = []
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"}:
                found.append(str(entry.get("msg", "")).strip())
    return found
