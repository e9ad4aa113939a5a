"""The sub-command that runs a container."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hostspec.cli.context import Context, idmap_of
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import progress_bar, told
from hostspec.cli.variables import variables
from hostspec.cli.warnings import warnings_shown
from hostspec.errors import HostspecError
from hostspec.idmap import IdMap
from hostspec.run.foreground import attend
from hostspec.run.options import DEFAULT_SUBNET, Network, RunOptions, Volume, network_of
from hostspec.run.preparing import prepare
from hostspec.run.runs import Run
from hostspec.run.runtimes import CANNOT_RUN, NotStarted, RuntimeFailed
from hostspec.store.configuration.policy import Strategy
from hostspec.values import ProgressCallback

__all__ = ["failing_as_podman", "refuse_without_terminal", "run"]


class Outcome:
    """What a command ends with."""

    def __init__(self) -> None:
        self.code = CANNOT_RUN


@contextmanager
def failing_as_podman() -> Iterator[Outcome]:
    """Print an error of the block, and end with the exit code that podman would have: 125, 126 or 127."""
    outcome = Outcome()
    try:
        yield outcome
    except (HostspecError, OSError) as error:
        if not isinstance(error, NotStarted):  # which the runtime has printed itself
            print(f"hostspec: {told(error)}", file=sys.stderr)
        outcome.code = error.exit_code if isinstance(error, RuntimeFailed) else CANNOT_RUN


def run(context: Context, arguments: Arguments) -> int:
    """Run a command in a new container; the exit code is the command's, or 125 to 127 where it never ran."""
    image = arguments.positionals[0]
    with failing_as_podman() as outcome:
        if arguments.given("detach"):
            from hostspec.run.detached import run_detached  # noqa: PLC0415 - not for the foreground

            with warnings_shown(), progress_bar("mapping") as progress:
                identifier = run_detached(context.store, image, _options(context, arguments, progress))
            print(identifier)
            outcome.code = 0
        else:
            outcome.code = _attended(context, image, arguments)
    return outcome.code


def _attended(context: Context, image: str, arguments: Arguments) -> int:
    with warnings_shown(), progress_bar("mapping") as progress:
        options = _options(context, arguments, progress)
        prepared = prepare(context.store, image, options)
    stdin = None if options.interactive else subprocess.DEVNULL
    code = None
    try:
        status = attend(lambda signals: prepared.start((stdin, None, None), signals=signals))
        code = prepared.exit_code(status)
    finally:
        _finish(prepared, code)
    return code


def _finish(run: Run, code: int | None) -> None:
    """Take down what is left; what cannot be now does not change what the command has ended with."""
    try:
        run.finish(code)
    except (HostspecError, OSError) as error:
        print(f"hostspec: {told(error)}; the next command of hostspec tries again", file=sys.stderr)


def _options(context: Context, arguments: Arguments, progress: ProgressCallback | None) -> RunOptions:
    name = arguments.one("name")
    both = arguments.given("console")
    network = network_of(arguments.one("network") or "none")
    options = RunOptions(
        names=(name,) if name else (),
        command=arguments.positionals[1:],
        entrypoint=_entrypoint(arguments.one("entrypoint")),
        environment=variables(arguments),
        working_directory=arguments.one("workdir") or "",
        user=arguments.one("user") or "",
        hostname=arguments.one("hostname") or "",
        idmap=_idmap(arguments),
        automatic_map=arguments.one("userns") == "auto",
        idmap_strategy=_strategy(arguments),
        network=network,
        subnet=arguments.one("subnet") or _usual_subnet(network),
        read_only=arguments.given("read-only"),
        volumes=tuple(Volume.parse(each) for each in arguments.every("volume")),
        storage_options=tuple(_storage_option(each) for each in arguments.every("layer-opt")),
        runtime=arguments.one("runtime") or "",
        interactive=both or arguments.given("interactive"),
        terminal=both or arguments.given("tty"),
        remove=arguments.given("rm"),
        squash=context.squash,
        progress=progress,
    )
    if options.terminal:
        if arguments.given("detach"):
            raise UsageError("--tty", "needs the foreground; leave out --detach")
        refuse_without_terminal()
    return options


def _entrypoint(text: str | None) -> tuple[str, ...] | None:
    """Return the words before the command: those of a JSON list, or else one program, as podman reads it."""
    if text is None:
        return None
    if text.startswith("["):
        import json  # noqa: PLC0415 - seldom asked for

        with suppress(ValueError):
            words = json.loads(text)
            if all(isinstance(each, str) for each in words):
                return tuple(words)
    return (text,) if text else ()


def refuse_without_terminal() -> None:
    """Raise UsageError where a command cannot have a terminal, since this process has none."""
    if any(map(os.isatty, range(3))):
        return
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise UsageError("--tty", "there is no terminal here; leave it out") from None


def _usual_subnet(network: Network) -> str:
    """Return what ``hostspec.conf`` says, whichever store is used: networks are the machine's."""
    if network != "private":
        return DEFAULT_SUBNET
    from hostspec.store.configuration.own_settings import read_own_settings  # noqa: PLC0415 - loads a parser

    return read_own_settings().subnet or DEFAULT_SUBNET


def _idmap(arguments: Arguments) -> IdMap | None:
    """Return the map that was given; ``None`` for the store's own.

    Raises:
        UsageError: ``--userns`` is something else than it may be, or contradicts the other flags.
    """
    given = idmap_of(arguments)
    userns = arguments.one("userns")
    if userns not in {None, "auto", "host"}:
        raise UsageError("--userns", f"{userns!r} is neither auto nor host")
    if userns is not None and given is not None:
        raise UsageError("--userns", "contradicts a map")
    return IdMap() if userns == "host" else given


def _strategy(arguments: Arguments) -> Strategy | None:
    if arguments.one("idmap-strategy") is None:
        return None
    from hostspec.cli.containers import strategy_of  # noqa: PLC0415 - seldom asked for

    return strategy_of(arguments)


def _storage_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError("--storage-opt", f"{text!r} is not KEY=VALUE")
    return key, value
