"""Running with the caller's own standard streams: signals are passed on, and the exit code comes back.

For a process that does nothing else, from its main thread.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Collection

__all__ = ["attend"]

FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGCONT,
        signal.SIGWINCH,
    }
)

Starter = Callable[[Collection[signal.Signals]], "subprocess.Popen[bytes]"]


def attend(starter: Starter) -> int:
    """Start a program, pass signals on to it, and wait until it ends.

    Args:
        starter: Starts it, with the signals blocked in it that it is told.

    Returns:
        Its exit status; negative for a signal.
    """
    forwarded = {each for each in FORWARDED if signal.getsignal(each) not in {signal.SIG_IGN, None}}
    waited = {*forwarded, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    early: list[int] = []  # what comes while the program is started, by a thread in which nothing is blocked
    handlers = {each: signal.signal(each, lambda number, _: early.append(number)) for each in forwarded}
    try:
        process = starter({signal.Signals(each) for each in before})
        for each in early:
            process.send_signal(each)
        return _wait(process, waited)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(process: subprocess.Popen[bytes], waited: Collection[signal.Signals]) -> int:
    while True:
        status = process.poll()
        if status is not None:
            return status
        info = signal.sigwaitinfo(waited)
        # What a terminal sends goes to its whole foreground group, so the program has it already.
        if info.si_signo != signal.SIGCHLD and info.si_code <= 0:
            process.send_signal(info.si_signo)
