"""The ``events`` sub-command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments
from hostspec.cli.render import SHORT_ID, human_size, print_json
from hostspec.run.quota_listening import QuotaEvent, quota_events
from hostspec.store.format.timestamps import now

__all__ = ["events"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


def events(context: Context, arguments: Arguments) -> None:
    """Print each quota warning when it comes, one a line, until SIGINT or SIGTERM."""
    with _told_to_end() as stop, quota_events(context.store) as listening:
        for event in listening.until(stop):
            if arguments.given("json"):
                print_json(_as_json(event))
            else:
                print(f"{now()} {_subject(event)}: {event.warning.level.value} ({_limit(event)})")
            sys.stdout.flush()


@contextmanager
def _told_to_end() -> Iterator[int]:
    """Give a descriptor from which something can be read once a signal has asked this process to end."""
    receiving, sending = socket.socketpair()
    with receiving, sending:
        os.set_blocking(sending.fileno(), False)
        wakeup = signal.set_wakeup_fd(sending.fileno())
        handlers = {each: signal.signal(each, lambda *_: None) for each in _ENDING}
        try:
            yield receiving.fileno()
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            signal.set_wakeup_fd(wakeup)


def _subject(event: QuotaEvent) -> str:
    if event.container is None:
        return f"{event.warning.kind} {event.warning.number}"
    return ",".join(event.container.names) or event.container.id[:SHORT_ID]


def _limit(event: QuotaEvent) -> str:
    resource = event.warning.resource
    if event.limit is None:
        return resource
    return human_size(event.limit) if resource == "bytes" else f"{event.limit} {resource}"


def _as_json(event: QuotaEvent) -> dict[str, object]:
    warning, container = event.warning, event.container
    return {
        "time": now(),
        "container": None if container is None else container.id,
        "names": [] if container is None else list(container.names),
        "event": warning.level.value,
        "resource": warning.resource,
        "limit": event.limit,
        warning.kind: warning.number,
        "device": f"{os.major(warning.device)}:{os.minor(warning.device)}",
        "uid": warning.uid,
    }
