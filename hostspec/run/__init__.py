"""Running containers: from an image in the store to a process, by an ordinary OCI runtime.

::

    import subprocess
    from hostspec.idmap import IdMap
    from hostspec.run import RunOptions, running
    from hostspec.store import open_store

    options = RunOptions(command=("id",), idmap=IdMap.parse(["0:514000:65536"]), remove=True)
    with open_store() as store, running(store, "debian", options, stdout=subprocess.PIPE) as process:
        print(process.stdout.read())
        print(process.wait())

A container is an ordinary container of the store. While it runs, one process looks after it and holds a
lock; when that process is gone, however it ended, whoever comes next takes down what is left.
"""

# Loaded when it is asked for: starting a container takes no part of what lists, stops or joins others.
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostspec.run.control import ListedRun, list_runs, open_output, remove, stop
    from hostspec.run.detached import run_detached
    from hostspec.run.joining import ExecOptions, execute
    from hostspec.run.options import RunOptions, Volume
    from hostspec.run.process import Process, running
    from hostspec.run.quota_listening import QuotaEvent, QuotaEvents, quota_events
    from hostspec.run.recovery import clean_up
    from hostspec.run.runtimes import NotStarted, RuntimeFailed

__all__ = [
    "ExecOptions",
    "ListedRun",
    "NotStarted",
    "Process",
    "QuotaEvent",
    "QuotaEvents",
    "RunOptions",
    "RuntimeFailed",
    "Volume",
    "clean_up",
    "execute",
    "list_runs",
    "open_output",
    "quota_events",
    "remove",
    "run_detached",
    "running",
    "stop",
]

_HOMES = {
    "ExecOptions": "joining",
    "ListedRun": "control",
    "NotStarted": "runtimes",
    "Process": "process",
    "QuotaEvent": "quota_listening",
    "QuotaEvents": "quota_listening",
    "RunOptions": "options",
    "RuntimeFailed": "runtimes",
    "Volume": "options",
    "clean_up": "recovery",
    "execute": "joining",
    "list_runs": "control",
    "open_output": "control",
    "quota_events": "quota_listening",
    "remove": "control",
    "run_detached": "detached",
    "running": "process",
    "stop": "control",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
