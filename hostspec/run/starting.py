"""Starting an OCI runtime where the container's root can be entered.

The container's root may not be let through the directories above its mount: they belong to the host's
root, and are closed to everybody else. So the runtime gets a mount namespace of its own, in which the
root is also mounted at a place that everybody may enter. Nobody else sees that mount, and it goes with the
namespace, however that ends. No directory's permissions are changed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Sequence
from typing import IO

from hostspec.errors import DriverFailed
from hostspec.kernel.mounts import MS_REC, MS_SLAVE, bind, mount
from hostspec.kernel.syscalls import check, libc

__all__ = ["ENTRANCE", "start"]

ENTRANCE = "/run/hostspec"
"""Where a mapped container's root is mounted in the runtime's namespace; an empty directory elsewhere."""

_CLONE_NEWNS = 0x20000
_FOR_SERVICES = frozenset({"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"})
"""What a service manager tells the service that we are part of (sd_notify(3), sd_listen_fds(3)). Runtimes
take it for the container's own: they wait until that reports to be ready, and pass descriptors on."""
_EVERYBODY_MAY_ENTER = 0o711

Stream = int | IO[bytes] | None


def start(
    words: Sequence[str],
    *,
    entrance_to: str = "",
    streams: tuple[Stream, Stream, Stream] = (None, None, None),
    signals: Collection[signal.Signals] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program.

    Args:
        words: Its command line, the program with its path.
        entrance_to: Directory to mount at :data:`ENTRANCE`, for this program alone; ``""`` for nothing.
        streams: Its standard streams, as :class:`subprocess.Popen` takes them.
        signals: The signals that are blocked in it; by default as in the caller.

    Raises:
        DriverFailed: The mount was refused.
        OSError: The program cannot be started.
    """
    result: list[subprocess.Popen[bytes]] = []
    failure: list[BaseException] = []

    def run() -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            if entrance_to:
                _enter_own_namespace(entrance_to)
            if signals is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            stdin, stdout, stderr = streams
            result.append(
                subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=_environment())
            )
        except BaseException as error:  # noqa: BLE001 - raised again, by the caller's thread
            failure.append(error)
        finally:
            # It takes a thread a while to end after others take it for ended. A signal that came to it then
            # would be lost on a caller who waits for it in another way than by a handler.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # Both belong to a thread, and its children inherit them: so they are changed in one that ends at once.
    thread = threading.Thread(target=run, name="hostspec-start")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _FOR_SERVICES}


def _enter_own_namespace(root: str) -> None:
    try:
        os.makedirs(ENTRANCE, exist_ok=True)
        os.chmod(ENTRANCE, _EVERYBODY_MAY_ENTER)  # whatever the umask was
        check(libc().unshare(_CLONE_NEWNS))
        # What is mounted or unmounted on the host is seen here too, and nothing the other way round.
        mount(None, "/", None, MS_REC | MS_SLAVE)
        bind(root, ENTRANCE, recursive=True)
    except OSError as error:
        raise DriverFailed(f"mount {root} at {ENTRANCE} for the runtime", error) from error
