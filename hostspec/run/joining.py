"""Running a further process in a container that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from hostspec.run.accounts import find_account
from hostspec.run.bundle import terminal_of
from hostspec.run.control import running_place
from hostspec.run.options import refuse_unless_absolute
from hostspec.run.places import CONFIG, RunPlace
from hostspec.run.runs import first_process, read_pid, runtime_of
from hostspec.run.runtimes import exit_code_of
from hostspec.store import Store

__all__ = ["ExecOptions", "execute"]


class ExecOptions(NamedTuple):
    """How a further process is to be run. What is left out is as for the first one."""

    environment: tuple[str, ...] = ()
    """``NAME=VALUE``, in addition."""
    working_directory: str = ""
    """Absolute path in the container."""
    user: str = ""
    """``USER[:GROUP]``, each by a name that the container knows, or by number."""
    terminal: bool = False
    """Whether its standard streams are a terminal of its own."""


def execute(
    store: Store,
    reference: str,
    command: tuple[str, ...],
    options: ExecOptions,
    attend: Callable[[list[str]], int],
) -> int:
    """Run a further process in a container, and return its exit code.

    Args:
        store: The store.
        reference: To the container.
        command: The command.
        options: How.
        attend: Runs a program and returns its exit status, negative for a signal.

    Raises:
        Unknown: There is no such container.
        InvalidRequest: It does not run, or has no such user.
        RuntimeFailed: The process could not be started.
    """
    if options.working_directory:
        refuse_unless_absolute(options.working_directory)
    place, record = running_place(store, reference)
    process = _process(place, command, options)
    name = place.file(f"exec-{os.urandom(8).hex()}")
    description, pid_file, log = f"{name}.json", f"{name}.pid", f"{name}.log"
    runtime = runtime_of(place, record)._replace(log=log)
    try:
        with open(description, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(process, file, ensure_ascii=False)
        status = attend(runtime.exec(place.container, description, pid_file))
        if read_pid(pid_file) is None:
            raise runtime.failure(status)
    finally:
        for each in (description, pid_file, log):
            with suppress(FileNotFoundError):
                os.unlink(each)
    return exit_code_of(status)


def _process(place: RunPlace, command: tuple[str, ...], options: ExecOptions) -> dict[str, Any]:
    """Return the first process as ``config.json`` has it, with what is asked for instead."""
    with open(place.file(CONFIG), encoding="utf-8", errors="surrogateescape") as file:
        process: dict[str, Any] = json.load(file)["process"]
    environment = process["env"]
    if options.user:
        root = f"/proc/{first_process(place)}/root"
        first = find_account(root, str(process["user"]["uid"]))
        account = find_account(root, options.user)
        process["user"] = {"uid": account.uid, "gid": account.gid, "additionalGids": list(account.groups)}
        held = process["capabilities"]["bounding"] if account.uid == 0 else []
        process["capabilities"].update(effective=held, permitted=held)
        # The home of the first process's user; any other was asked for, and stays.
        environment = [
            f"HOME={account.home}" if each == f"HOME={first.home}" else each for each in environment
        ]
    terminal = ("TERM=xterm",) if options.terminal else ()
    by_name = {each.partition("=")[0]: each for each in (*terminal, *environment, *options.environment)}
    process["env"] = list(by_name.values())
    process["args"] = list(command)
    process.pop("consoleSize", None)
    process.update(terminal_of(options.terminal))
    process["cwd"] = options.working_directory or process["cwd"]
    return process
