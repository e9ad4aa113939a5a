"""The entry point: run the command line, and turn errors into exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = {
    "success": 0,
    "failure": 1,
    "interrupted": 130,
}
"""What a process that ran ``hostspec`` sees; the peer knows only the first two."""

GARBAGE_THRESHOLD = 50_000
"""Objects made between two searches for garbage; Python's own number is 700."""

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
"""The standard streams by their numbers, and how each is opened."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        words: The arguments after the program's name; ``None`` for this process's own, which is to end
            when they have been run.

    Returns:
        The exit code, see :data:`EXIT_CODES`.
    """
    # Loading modules makes many objects and no garbage; looking for it takes a tenth of a short command.
    gc.set_threshold(GARBAGE_THRESHOLD)
    if words is not None:
        return _code_of(words)
    try:
        _open_missing_streams()
        return _code_of(sys.argv[1:])
    finally:
        # And so does looking for it once more when the interpreter ends.
        gc.freeze()


def _code_of(words: Sequence[str]) -> int:
    from hostspec.cli.dispatch import run  # noqa: PLC0415 - loaded when the threshold is set
    from hostspec.cli.grammar import UsageError  # noqa: PLC0415
    from hostspec.errors import HostspecError  # noqa: PLC0415

    try:
        code = run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_CODES["interrupted"]
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES["failure"]
    except HostspecError as error:
        if _debugging(words):
            raise
        print(f"hostspec: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UsageError) else EXIT_CODES["failure"]
    except OSError as error:
        if _debugging(words):
            raise
        from hostspec.cli.render import told  # noqa: PLC0415 - for this alone

        print(f"hostspec: {told(error)}", file=sys.stderr)
        return EXIT_CODES["failure"]
    return code


def _open_missing_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    A file that is opened later would get such a number, and be taken for a standard stream by programs that
    we start; the lock of a run is one that they are given.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    # The lowest free number is taken, so one beyond the standard streams says that all of those are open.
    while (fd := os.open(os.devnull, os.O_RDWR)) < len(_STREAMS):
        os.set_inheritable(fd, True)  # noqa: FBT003 - takes no keyword
    os.close(fd)
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open


def _debugging(words: Sequence[str]) -> bool:
    """Tell whether errors are to show where they come from; with several flags, the last counts."""
    from hostspec.cli.grammar import TRUE  # noqa: PLC0415 - only an error needs it

    found = [word.partition("=") for word in words if word.partition("=")[0] in {"-D", "--debug"}]
    return bool(found) and (not found[-1][1] or found[-1][2] in TRUE)
