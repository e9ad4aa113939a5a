"""Sub-commands about containers that run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import suppress

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.objects import print_error
from hostspec.cli.render import SHORT_ID, print_json, table, used_of_limits
from hostspec.cli.run import failing_as_podman, refuse_without_terminal
from hostspec.cli.templates import filled
from hostspec.cli.variables import variables
from hostspec.errors import HostspecError, Unknown
from hostspec.run.control import SECONDS_TO_END, ListedRun, list_runs, open_output, remove, stop
from hostspec.run.foreground import attend
from hostspec.run.joining import ExecOptions, execute
from hostspec.run.places import RunPlace
from hostspec.run.starting import start
from hostspec.store import Store
from hostspec.values import DiskUsage

__all__ = ["exec_", "logs", "ps", "rm", "stop_"]

_COMMAND_WIDTH = 40
_SECONDS_BETWEEN_LOOKS = 0.1
_TITLES: tuple[str, ...] = ("CONTAINER", "IMAGE", "COMMAND", "STATUS", "PID", "ADDRESS", "NAMES")
_FIELDS = ("ID", "Image", "Command", "Status", "Pid", "Address", "Names")
"""What podman calls the columns in templates; it has no addresses there."""


def ps(context: Context, arguments: Arguments) -> None:
    """List what runs."""
    found = list_runs(context.store, ended=arguments.given("all"))
    sized = arguments.given("size")
    template = arguments.one("format")
    # Only where asked for: most drivers look at every file of the layer.
    usages = [_usage(context.store, each) if sized else None for each in found]
    if arguments.given("json") or template == "json":
        print_json([_as_json(*each) for each in zip(found, usages, strict=True)])
    elif template:
        for each in found:
            print(filled(template, dict(zip(_FIELDS, _row(each), strict=True))))
    elif arguments.given("quiet"):
        for each in found:
            print(each.container.id)
    else:
        titles = _TITLES
        rows = [_row(each) for each in found]
        if sized:
            titles = (*titles, "SIZE", "INODES")
            spaces = [("-", "-") if usage is None else used_of_limits(usage) for usage in usages]
            rows = [(*row, *space) for row, space in zip(rows, spaces, strict=True)]
        print(table(titles, rows), end="")


def _usage(store: Store, run: ListedRun) -> DiskUsage | None:
    with suppress(Unknown):  # it may have gone meanwhile
        return store.disk_usage(run.container.id)
    return None


def _row(run: ListedRun) -> tuple[str, ...]:
    command = " ".join(run.record.command)
    return (
        run.container.id[:SHORT_ID],
        run.record.image,
        command if len(command) <= _COMMAND_WIDTH else f"{command[: _COMMAND_WIDTH - 1]}…",
        _status(run),
        str(run.process or "-"),
        (run.record.address if run.running else "") or "-",
        ",".join(run.container.names) or "-",
    )


def _status(run: ListedRun) -> str:
    if run.running:
        return "running"
    return "ended" if run.record.exit_code is None else f"ended ({run.record.exit_code})"


def _as_json(run: ListedRun, usage: DiskUsage | None) -> dict[str, object]:
    document = {
        "id": run.container.id,
        "names": list(run.container.names),
        "image": run.record.image,
        "command": list(run.record.command),
        "running": run.running,
        "pid": run.process,
        "address": run.record.address or None,
        "started": run.record.started,
        "ended": run.record.ended or None,
        "exit-code": run.record.exit_code,
    }
    if usage is not None:
        document |= {
            "bytes": usage.exclusive_bytes + usage.shared_bytes,
            "limit-bytes": usage.limit_bytes,
            "inodes": usage.inodes,
            "limit-inodes": usage.limit_inodes,
        }
    return document


def stop_(context: Context, arguments: Arguments) -> int:
    """End containers."""
    given = arguments.one("time")
    if given is not None and not given.isdecimal():
        raise UsageError("--time", f"{given!r} is no number of seconds")
    seconds = SECONDS_TO_END if given is None else float(given)
    code = 0
    for reference in arguments.positionals:
        try:
            stop(context.store, reference, seconds=seconds)
            print(reference)
        except HostspecError as error:
            print_error(str(error))
            code = 1
    return code


def rm(context: Context, arguments: Arguments) -> int:
    """Delete containers that have run."""
    code = 0
    for reference in arguments.positionals:
        try:
            remove(context.store, reference, force=arguments.given("force"))
            print(reference)
        except HostspecError as error:
            print_error(str(error))
            code = 1
    return code


def logs(context: Context, arguments: Arguments) -> None:
    """Print what a detached container has written, and what it writes until it ends, if that is wanted."""
    sys.stdout.flush()
    reference = arguments.positionals[0]
    place = RunPlace.of(context.store, context.store.container(reference).id)
    with open_output(context.store, reference) as output:
        goes_on = True
        while goes_on:
            # Asked first, as it may write something more between the last look and its end.
            goes_on = arguments.given("follow") and place.is_owned()
            shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.flush()
            if goes_on:
                time.sleep(_SECONDS_BETWEEN_LOOKS)


def exec_(context: Context, arguments: Arguments) -> int:
    """Run a further command in a container; the exit code is the command's."""
    reference, *command = arguments.positionals
    both = arguments.given("console")
    stdin = None if both or arguments.given("interactive") else subprocess.DEVNULL
    with failing_as_podman() as outcome:
        options = ExecOptions(
            environment=variables(arguments),
            working_directory=arguments.one("workdir") or "",
            user=arguments.one("user") or "",
            terminal=both or arguments.given("tty"),
        )
        if options.terminal:
            refuse_without_terminal()
        outcome.code = execute(
            context.store,
            reference,
            tuple(command),
            options,
            lambda words: attend(lambda signals: start(words, streams=(stdin, None, None), signals=signals)),
        )
    return outcome.code
