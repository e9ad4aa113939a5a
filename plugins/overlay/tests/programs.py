"""Processes of mount programs."""

from __future__ import annotations

import os


def running_in(directory: str) -> list[int]:
    """Return the IDs of processes whose command line names something below a directory, this one left out.

    One that has ended does not count, even if nobody has reaped it yet.
    """
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(name) != os.getpid() and os.fsencode(f"{directory}/") in command:
            found.append(int(name))
    return found
