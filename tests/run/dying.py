"""A command of hostspec that is killed at a certain place: where a function is called, or returns.

``python -m tests.run.dying MODULE FUNCTION call|return WORDS…``
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from hostspec.cli.main import main


def kill_at(module: str, function: str, event: str) -> None:
    """Kill this process at that place, in its main thread."""

    def look(frame: FrameType, what: str, _argument: object) -> None:
        at = (frame.f_globals.get("__name__"), frame.f_code.co_qualname, what)
        if at == (module, function, event):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


if __name__ == "__main__":
    kill_at(*sys.argv[1:4])
    sys.exit(main(sys.argv[4:]))
