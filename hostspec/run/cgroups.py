"""The control groups of containers: one for each, right below the root of each hierarchy.

The runtime makes them and puts the processes in (``cgroupsPath``); what it leaves behind is removed here.
Where this process may not make any, containers have none.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from hostspec.kernel.mountinfo import mount_table
from hostspec.run.orphans import kill_and_wait

__all__ = ["can_make_cgroups", "cgroup_of", "kill_cgroup", "remove_cgroup"]

_KINDS = frozenset({"cgroup", "cgroup2"})


def cgroup_of(container: str) -> str:
    """Return the path of a container's control group below each hierarchy."""
    return f"/hostspec-{container}"


def can_make_cgroups() -> bool:
    """Tell whether this process may make control groups in some hierarchy."""
    return any(os.access(each, os.W_OK) for each in _hierarchies())


def kill_cgroup(cgroup: str) -> None:
    """Kill every process in a control group, and wait until they have ended."""
    for hierarchy in _hierarchies():
        directory = hierarchy + cgroup
        # A read that finds nobody ends it: what forks while it is killed is found by the next read.
        while processes := _processes(directory):
            for each in processes:
                kill_and_wait(each, partial(_is_in, each, directory))


def remove_cgroup(cgroup: str) -> None:
    """Remove a control group in which no process is left, with those in it; what is missing is no error."""
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy + cgroup, topdown=False):
            with suppress(FileNotFoundError):
                os.rmdir(directory)


def _hierarchies() -> list[str]:
    return [each.mount_point for each in mount_table() if each.filesystem in _KINDS]


def _is_in(process: int, directory: str) -> bool:
    return process in _processes(directory)


def _processes(directory: str) -> list[int]:
    """Return the processes in a control group and in those below it, without those that have ended."""
    found = []
    for each, _, _ in os.walk(directory):
        with suppress(OSError), open(os.path.join(each, "cgroup.procs"), encoding="ascii") as file:
            found += [int(line) for line in file]
    return found
